-- Every upstream call of a run, and why it was made. Nothing of its content. Times are unix seconds.
create table calls (
    run_id  text    not null references runs (id) on delete cascade,
    number  integer not null,
    attempt integer not null,
    cause   text    not null,
    sent_at real    not null,
    primary key (run_id, number)
) strict, without rowid;

-- A run that has begun can wait as well: for a new attempt.
drop index runs_waiting;

create index runs_waiting on runs (caller, ord) where owner is null and finished_at is null;
