-- Which run goes on from which: a link and no copy, so that deleting a run destroys what it said.
-- sweep_at is when to look whether a run can be destroyed: at its expires_at, and not at all while a
-- run goes on from it, for that one's end takes it along.
alter table runs add column previous text;
alter table runs add column sweep_at real;
-- Whether the caller waits for it, so that it takes no slot of the background runs.
alter table runs add column foreground integer not null default 0;

update runs set sweep_at = expires_at where expires_at is not null;

drop index runs_expiring;
drop index runs_owned;

create index runs_sweeping on runs (sweep_at) where sweep_at is not null;
create index runs_by_previous on runs (previous, id, expires_at) where previous is not null;
create index runs_owned on runs (foreground, caller) where owner is not null;
