-- Creates that their client may send once more without any key, because it did not get the reply.
-- The body only as a keyed digest; times are unix seconds.
create table replies (
    run_id     text    not null primary key references runs (id) on delete cascade,
    caller     text    not null,
    body       blob    not null,
    kept_until real    not null,
    answered   integer not null default 0,
    handed_out integer not null default 0
) strict, without rowid;

create index replies_missing on replies (caller, body) where answered = 0;
create index replies_expiring on replies (kept_until);
