-- Who runs next, without counting runs: with a million waiting, a count of them is a second of work.
-- A run whose caller waits for it (`foreground`) holds no slot and is not among the running.
-- `started` and `turn` are no times but shares: when the latest run of a caller started, and when
-- its next one would, if each had to wait for 1/weight of everybody's turn.
create table queues (
    caller  text    not null primary key,
    waiting integer not null default 0,
    running integer not null default 0,
    started real    not null default 0,
    turn    real    not null default 0
) strict, without rowid;

insert into queues (caller, waiting, running)
select caller, count(*) filter (where owner is null and finished_at is null),
    count(owner) filter (where foreground = 0)
from runs group by caller;

-- Triggers, so that no transaction, now or later, can move a run and forget the count.
create trigger runs_accepted after insert on runs begin
    insert into queues (caller, waiting, running)
    values (new.caller, new.owner is null and new.finished_at is null,
        new.owner is not null and new.foreground = 0)
    on conflict (caller) do update set
        waiting = waiting + excluded.waiting, running = running + excluded.running;
end;

create trigger runs_moved after update of owner, finished_at on runs begin
    update queues set
        waiting = waiting + (new.owner is null and new.finished_at is null)
            - (old.owner is null and old.finished_at is null),
        running = running
            + ((new.owner is not null) - (old.owner is not null)) * (new.foreground = 0)
    where caller = new.caller;
end;

create trigger runs_deleted after delete on runs begin
    update queues set
        waiting = waiting - (old.owner is null and old.finished_at is null),
        running = running - (old.owner is not null and old.foreground = 0)
    where caller = old.caller;
end;

-- 0 goes first; only among the runs of one caller.
alter table runs add column priority integer not null default 1;

drop index runs_waiting;

create index runs_waiting on runs (caller, priority, ord)
where owner is null and finished_at is null;
