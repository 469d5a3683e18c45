-- name: insert_run
-- A new run, waiting.
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response, last_seq)
values (:id, :caller, 'queued', :created_at, :target, :plan, :wrapped_key, :request, :response, :last_seq);

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
-- How many runs of each caller hold a slot.
select caller, count(*) from runs where owner is not null group by caller;

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
update runs set owner = null where id = :id and fence = :fence and state = 'queued';

-- name: requeue
-- The same, whoever owned it; its fence is used up.
update runs set owner = null, fence = fence + 1 where id = :id and state = 'queued' and owner is not null;

-- name: finish
-- The end of a run, written by its own execution.
update runs set state = :state, response = :response, last_seq = :last_seq, owner = null,
    finished_at = :finished_at, expires_at = :expires_at
where id = :id and fence = :fence and state in ('queued', 'in_progress') and last_seq = :first_seq - 1;

-- name: conclude
-- The end of a run, written from outside: the fence moves, so its execution can write no more.
update runs set state = :state, response = :response, last_seq = :last_seq, owner = null,
    finished_at = :finished_at, expires_at = :expires_at, fence = fence + 1
where id = :id and state in ('queued', 'in_progress');

-- name: run
-- One run, whoever it belongs to.
select * from runs where id = :id;

-- name: run_of_caller
-- One run, if it is this caller's and its retention is not over.
select * from runs where id = :id and caller = :caller and (expires_at is null or expires_at > :now);

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
delete from runs where id = :id and caller = :caller;

-- name: expired
-- Runs whose retention is over.
select id, caller from runs where expires_at <= :now order by expires_at limit :limit;

-- name: find_item
-- The run that carries an item of this caller.
select run_id from items where caller = :caller and item_id = :item_id;

-- name: abandoned
-- Claimed runs of other owners. The plus keeps SQLite from walking all kept runs in their order.
select id from runs where owner is not null and owner <> :owner order by +ord;

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
delete from remotes where id in
    (select id from remotes where expires_at <= :now order by expires_at limit 10000);

-- name: key_of_create
-- The create of this caller under this key, and whether its run is still there.
select body, run_id, kept_until, exists (select 1 from runs where runs.id = idempotency.run_id
    and (runs.expires_at is null or runs.expires_at > :now)) as alive
from idempotency where caller = :caller and key = :key;

-- name: keep_key
-- A create under a key.
insert or replace into idempotency (caller, key, body, run_id, kept_until)
values (:caller, :key, :body, :run_id, :kept_until);

-- name: drop_keys
-- Keys whose time is over and whose run is gone.
delete from idempotency where (caller, key) in
    (select caller, key from idempotency where kept_until <= :now order by kept_until limit 10000)
    and not exists (select 1 from runs where runs.id = idempotency.run_id);

-- name: defer_keys
-- Keys whose time is over and whose run is not: they are looked at again when that expires, and
-- not at every sweep until then.
update idempotency set kept_until = coalesce(
    (select expires_at from runs where runs.id = idempotency.run_id), :now + 3600)
where (caller, key) in
    (select caller, key from idempotency where kept_until <= :now order by kept_until limit 10000);

-- name: usage
-- How many bytes this caller keeps, and all together.
select coalesce(max(bytes) filter (where caller = :caller), 0), coalesce(max(bytes) filter (where caller = ''), 0)
from usage where caller in ('', :caller);

-- name: usage_of_run
-- The same for the caller of a run, and its name.
select owner.caller, coalesce(own.bytes, 0), coalesce(total.bytes, 0)
from (select caller from runs where id = :id) as owner
left join usage as own on own.caller = owner.caller
left join usage as total on total.caller = '';

-- name: counted
-- What the counts say, by caller; the empty name stands for all.
select caller, bytes, runs from usage where runs <> 0 or bytes <> 0 order by caller;

-- name: recount
-- What they should say.
with sizes as (
    select caller, length(plan) + length(wrapped_key) + length(request) + length(response)
        + coalesce((select sum(length(body)) from segments where run_id = runs.id), 0) as bytes
    from runs
)
select caller, sum(bytes), count(*) from sizes group by caller
union all
select '', sum(bytes), count(*) from sizes having count(*) > 0
order by 1;

-- name: wrapped_keys
-- The data keys, some at a time.
select ord, id, wrapped_key from runs where ord > :after order by ord limit :limit;

-- name: replace_key
-- The same data key, sealed by another store key.
update runs set wrapped_key = :key where ord = :ord;

-- name: replace_meta
-- Another value about the store itself.
update meta set value = :value where name = :name;

-- name: all_runs
-- Every run, without its large values.
select id, state, wrapped_key, last_seq, finished_at, expires_at from runs order by ord;

-- name: all_segments
-- Every segment of a run, in order.
select first_seq, last_seq, body from segments where run_id = :run_id order by first_seq;
