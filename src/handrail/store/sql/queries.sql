-- name: insert_run
-- A new run, waiting.
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response, last_seq,
    previous, priority)
values (:id, :caller, 'queued', :created_at, :target, :plan, :wrapped_key, :request, :response, :last_seq,
    :previous, :priority);

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
select coalesce(sum(waiting) filter (where caller = :caller), 0), coalesce(sum(waiting), 0) from queues;

-- name: queues
-- Where every caller stands, and which of its runs is next.
select caller, running, started, turn, case when waiting > 0 then (
    select ord from runs where runs.caller = queues.caller and owner is null and finished_at is null
    order by priority, ord limit 1) end as place
from queues;

-- name: take_turn
-- A run of this caller starts.
update queues set started = :started, turn = :turn where caller = :caller;

-- name: run_at
-- The run at a place in the order of arrival.
select * from runs where ord = :place;

-- name: set_aside
-- A damaged run waits no longer, and holds no slot.
update runs set owner = :owner, fence = fence + 1, foreground = 1 where ord = :place;

-- name: claim
-- Hand the run at this place to an owner, under a new fence.
update runs set owner = :owner, fence = fence + 1
where ord = :place and owner is null and finished_at is null
returning fence;

-- name: begin
-- The first upstream call is about to be sent.
update runs set state = 'in_progress', sent_at = :now, attempt = 1, calls = 1, last_seq = :last_seq
where id = :id and fence = :fence and state = 'queued' and last_seq = :first_seq - 1;

-- name: begin_again
-- The first call of a new attempt is about to be sent, while nothing of an answer is in the log.
update runs set fence = fence + 1, attempt = attempt + 1, calls = calls + 1
where id = :id and fence = :fence and state = 'in_progress' and last_seq <= :last_opening
returning fence;

-- name: call_again
-- One more upstream call of the attempt that is under way.
update runs set calls = calls + 1 where id = :id and fence = :fence and state = 'in_progress';

-- name: add_call
-- The call that has just been counted: when, and why.
insert into calls (run_id, number, attempt, cause, sent_at)
select id, calls, attempt, :cause, :now from runs where id = :id;

-- name: calls
-- The upstream calls of a run.
select number, attempt, cause, sent_at from calls where run_id = :id order by number;

-- name: extend
-- Room for a segment, if the fence still holds.
update runs set last_seq = :last_seq
where id = :id and fence = :fence and state = 'in_progress' and last_seq = :first_seq - 1;

-- name: release
-- A claimed run of whose answer nothing is in the log goes back into the queue; one whose caller
-- waits for it never was in one.
update runs set owner = null, fence = fence + 1
where id = :id and fence = :fence and owner is not null and finished_at is null
    and last_seq <= :last_opening and foreground = 0;

-- name: requeue
-- The same, whoever owned it.
update runs set owner = null, fence = fence + 1
where id = :id and owner is not null and finished_at is null and last_seq <= :last_opening
    and foreground = 0;

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
-- Claimed runs of other owners. The plus keeps SQLite from walking all kept runs in their order.
select id from runs where owner is not null and owner <> :owner order by +ord;

-- name: unfinished
-- Every run that has not ended, and whose it is.
select id, caller from runs where owner is null and finished_at is null
union all
select id, caller from runs where owner is not null;

-- name: place_of_run
-- Where a run stands in the order of arrival.
select ord from runs where id = :id;

-- name: newest_runs
-- The latest runs of all callers, without their large values.
select id, caller, state, created_at, sent_at, finished_at, target, attempt, fence, calls,
    last_seq
from runs where ord <= (select max(ord) from runs) order by ord desc limit :limit;

-- name: runs_before
-- Those that came before a place in the order of arrival.
select id, caller, state, created_at, sent_at, finished_at, target, attempt, fence, calls,
    last_seq
from runs where ord < :before order by ord desc limit :limit;

-- name: shares
-- What each caller has here.
select queues.caller, waiting, running, coalesce(runs, 0) as kept, coalesce(bytes, 0) as bytes
from queues left join usage on usage.caller = queues.caller
where waiting <> 0 or running <> 0 or coalesce(runs, 0) <> 0 order by queues.caller;

-- name: counts
-- For readiness and the log.
select coalesce(sum(waiting), 0), coalesce(sum(running), 0) from queues;

-- name: get_meta
-- A value about the store itself.
select value from meta where name = :name;

-- name: put_meta
-- Set once, at creation.
insert into meta (name, value) values (:name, :value);

-- name: set_meta
-- Set anew.
insert into meta (name, value) values (:name, :value)
on conflict (name) do update set value = excluded.value;

-- name: remember
-- Where an upstream's response is; an id that another caller has is not taken over.
insert into remotes (id, caller, target, created_at, expires_at, account)
values (:id, :caller, :target, :created_at, :expires_at, :account)
on conflict (id) do update set created_at = excluded.created_at, expires_at = excluded.expires_at
where caller = excluded.caller and target = excluded.target;

-- name: locate
-- Where this caller's response is.
select id, caller, target, created_at, account from remotes where id = :id and caller = :caller and expires_at > :now;

-- name: forget
-- The upstream no longer has it.
delete from remotes where id = :id and caller = :caller;

-- name: forget_expired
-- Nobody has asked for these in a long time.
delete from remotes where id in
    (select id from remotes where expires_at <= :now order by expires_at limit 10000);

-- name: key_of_create
-- The create of this caller under this key.
select body, run_id, kept_until from idempotency where caller = :caller and key = :key;

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

-- name: missing_reply
-- The create of this caller with this body that got no reply and has been given out least.
update replies set handed_out = handed_out + 1
where run_id = (select run_id from replies where caller = :caller and body = :body and answered = 0
    and kept_until > :now order by handed_out, kept_until, run_id limit 1)
returning run_id;

-- name: expect_reply
-- A create whose reply is still to be written.
insert into replies (run_id, caller, body, kept_until) values (:run_id, :caller, :body, :kept_until);

-- name: note_reply
-- Whether it was written whole.
update replies set answered = :answered where run_id = :run_id;

-- name: drop_replies
-- Creates that nobody sends again any more.
delete from replies where kept_until <= :now;
