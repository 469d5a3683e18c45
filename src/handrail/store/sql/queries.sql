-- name: insert_run
-- A new run, waiting.
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response, last_seq,
    previous)
values (:id, :caller, 'queued', :created_at, :target, :plan, :wrapped_key, :request, :response, :last_seq,
    :previous);

-- name: insert_kept
-- A new run that its caller waits for: claimed, and its upstream call about to be sent.
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response, last_seq,
    previous, owner, attempt, fence, calls, sent_at, foreground)
values (:id, :caller, 'in_progress', :created_at, :target, :plan, :wrapped_key, :request, :response,
    :last_seq, :previous, :owner, 1, 1, 1, :created_at, 1);

-- name: insert_segment
-- Consecutive events of a run.
insert into segments (run_id, first_seq, last_seq, body) values (:run_id, :first_seq, :last_seq, :body);

-- name: insert_item
-- Where an item can be found; the latest run that carries the id wins.
insert or replace into items (caller, item_id, run_id) values (:caller, :item_id, :run_id);

-- name: count_waiting
-- How many runs wait, of this caller and in all.
select count(*) filter (where caller = :caller), count(*) from runs where state = 'queued' and owner is null;

-- name: waiting
-- The oldest waiting run of each caller.
select caller, min(ord) from runs where state = 'queued' and owner is null group by caller;

-- name: running
-- How many runs of each caller hold a slot; those whose caller waits hold none.
select caller, count(*) from runs where owner is not null and foreground = 0 group by caller;

-- name: claim
-- Hand the run at this place to an owner, under a new fence.
update runs set owner = :owner, fence = fence + 1, attempt = attempt + 1
where ord = :ord and state = 'queued' and owner is null
returning *;

-- name: begin
-- The upstream call is about to be sent.
update runs set state = 'in_progress', sent_at = :now, calls = calls + 1, last_seq = :last_seq
where id = :id and fence = :fence and state = 'queued' and last_seq = :first_seq - 1;

-- name: call_again
-- One more upstream call of a run that has begun.
update runs set calls = calls + 1 where id = :id and fence = :fence and state = 'in_progress';

-- name: extend
-- Room for a segment, if the fence still holds.
update runs set last_seq = :last_seq
where id = :id and fence = :fence and state = 'in_progress' and last_seq = :first_seq - 1;

-- name: release
-- A claimed run that has not begun goes back into the queue.
update runs set owner = null where id = :id and fence = :fence and state = 'queued' and foreground = 0;

-- name: requeue
-- The same, whoever owned it; its fence is used up.
update runs set owner = null, fence = fence + 1
where id = :id and state = 'queued' and owner is not null and foreground = 0;

-- name: finish
-- The end of a run, written by its own execution.
update runs set state = :state, response = :response, last_seq = :last_seq, owner = null,
    finished_at = :finished_at, expires_at = :expires_at, sweep_at = :expires_at
where id = :id and fence = :fence and state in ('queued', 'in_progress') and last_seq = :first_seq - 1;

-- name: conclude
-- The end of a run, written from outside: the fence moves, so its execution can write no more.
update runs set state = :state, response = :response, last_seq = :last_seq, owner = null,
    finished_at = :finished_at, expires_at = :expires_at, sweep_at = :expires_at, fence = fence + 1
where id = :id and state in ('queued', 'in_progress');

-- name: run
-- One run, whoever it belongs to.
select * from runs where id = :id;

-- name: run_of_caller
-- One run, if it is this caller's and its retention is not over.
select * from runs where id = :id and caller = :caller and (expires_at is null or expires_at > :now);

-- name: kept_for_another
-- One run of this caller whose own retention is over, if one that goes on from it is still kept.
with recursive younger (id, expires_at) as (
    select id, expires_at from runs where previous = :id
    union
    select runs.id, runs.expires_at from runs join younger on runs.previous = younger.id
)
select * from runs where id = :id and caller = :caller
    and exists (select 1 from younger where expires_at is null or expires_at > :now);

-- name: ancestor
-- The run that another one goes on from. It is older, so a damaged link cannot lead round for ever.
select * from runs where id = :id and caller = :caller and ord < :before;

-- name: segments_after
-- The segments that hold events after a number.
select first_seq, last_seq, body from segments where run_id = :run_id and last_seq > :after order by first_seq;

-- name: run_key
-- The wrapped data key of a run.
select wrapped_key from runs where id = :id;

-- name: destroy_key
-- First half of a deletion: without its key, what is left of the run is noise.
update runs set wrapped_key = zeroblob(length(wrapped_key)) where id = :id and caller = :caller;

-- name: delete_run
-- Second half: the bytes.
delete from runs where id = :id and caller = :caller returning previous;

-- name: due
-- Runs whose retention is over, so far as is known without looking for ones that go on from them.
select id, caller, previous from runs where sweep_at <= :now order by sweep_at limit :limit;

-- name: due_too
-- The same of one run.
select id, caller, previous from runs where id = :id and sweep_at <= :now;

-- name: is_continued
-- Whether a run goes on from this one.
select exists (select 1 from runs where previous = :id);

-- name: hold
-- Not to be looked at again before the last run that goes on from it is gone.
update runs set sweep_at = null where id = :id;

-- name: let_go
-- The last one that went on from it is gone: its own time counts again.
update runs set sweep_at = expires_at where id = :id and sweep_at is null
    and not exists (select 1 from runs as younger where younger.previous = runs.id);

-- name: find_item
-- The run that carries an item of this caller.
select run_id from items where caller = :caller and item_id = :item_id;

-- name: abandoned
-- Claimed runs of other owners.
select id from runs where owner is not null and owner <> :owner order by ord;

-- name: unfinished
-- Every run that has not ended, and whose it is.
select id, caller from runs where state = 'queued' and owner is null
union all
select id, caller from runs where owner is not null;

-- name: counts
-- For readiness and the log.
select (select count(*) from runs where state = 'queued' and owner is null),
    (select count(*) from runs where owner is not null);

-- name: get_meta
-- A value about the store itself.
select value from meta where name = :name;

-- name: put_meta
-- Set once, at creation.
insert into meta (name, value) values (:name, :value);

-- name: remember
-- Where an upstream's response is; an id that another caller has is not taken over.
insert into remotes (id, caller, target, created_at, expires_at)
values (:id, :caller, :target, :created_at, :expires_at)
on conflict (id) do update set created_at = excluded.created_at, expires_at = excluded.expires_at
where caller = excluded.caller and target = excluded.target;

-- name: locate
-- Where this caller's response is.
select * from remotes where id = :id and caller = :caller and expires_at > :now;

-- name: forget
-- The upstream no longer has it.
delete from remotes where id = :id and caller = :caller;

-- name: forget_expired
-- Nobody has asked for these in a long time.
delete from remotes where expires_at <= :now;

-- name: key_of_create
-- The create of this caller under this key.
select body, run_id, kept_until from idempotency where caller = :caller and key = :key;

-- name: keep_key
-- A create under a key.
insert or replace into idempotency (caller, key, body, run_id, kept_until)
values (:caller, :key, :body, :run_id, :kept_until);

-- name: drop_keys
-- Keys whose time is over and whose run is gone.
delete from idempotency where kept_until <= :now
    and not exists (select 1 from runs where runs.id = idempotency.run_id);
