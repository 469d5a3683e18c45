-- name: insert_run
-- A new run, waiting.
insert into runs (id, caller, state, created_at, target, plan, wrapped_key, request, response, last_seq,
    priority)
values (:id, :caller, 'queued', :created_at, :target, :plan, :wrapped_key, :request, :response, :last_seq,
    :priority);

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

-- name: claim
-- Hand the run at this place to an owner, under a new fence.
update runs set owner = :owner, fence = fence + 1
where ord = :place and owner is null and finished_at is null
returning *;

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
-- A claimed run of whose answer nothing is in the log goes back into the queue.
update runs set owner = null, fence = fence + 1
where id = :id and fence = :fence and owner is not null and finished_at is null
    and last_seq <= :last_opening;

-- name: requeue
-- The same, whoever owned it.
update runs set owner = null, fence = fence + 1
where id = :id and owner is not null and finished_at is null and last_seq <= :last_opening;

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
-- Claimed runs of other owners.
select id from runs where owner is not null and owner <> :owner order by ord;

-- name: unfinished
-- Every run that has not ended, and whose it is.
select id, caller from runs where owner is null and finished_at is null
union all
select id, caller from runs where owner is not null;

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
delete from idempotency where kept_until <= :now
    and not exists (select 1 from runs where runs.id = idempotency.run_id);

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
