-- How often the operator has had an account resumed, or signed in again: processes that remember
-- failures or pauses of it forget them when this changes.
alter table accounts add column resumed integer not null default 0;

-- What it has paid for beside its plan, in the upstream's words.
alter table accounts add column credits text;

-- The model that alone a window holds for, null for all calls.
alter table quota add column about text;
