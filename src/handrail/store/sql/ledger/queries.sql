-- name: insert_call
-- A call that is over. A batch that is written again after an error adds nothing twice.
insert or ignore into calls (id, started_at, ended_at, seconds, caller, project, target, account, model,
    sent_model, mode, endpoint, response_id, cause, status, outcome, input, cached, output, reasoning, tier,
    cost, counts)
values (:id, :started_at, :ended_at, :seconds, :caller, :project, :target, :account, :model,
    :sent_model, :mode, :endpoint, :response_id, :cause, :status, :outcome, :input, :cached, :output, :reasoning,
    :tier, :cost, :counts);

-- name: spent
-- What counts of the calls that ended from a moment on, by whom and of what.
select caller, project, model, sent_model, account, count(*) as requests,
    coalesce(sum(cost), 0) as cost, sum(cost is null) as unpriced,
    coalesce(sum(input + output), 0) as used, sum(input is null or output is null) as uncounted
from calls where ended_at >= :since and counts = 1
group by caller, project, model, sent_model, account;

-- name: usage
-- Sums of the calls that ended within a time, by steps of it and by what is asked for: what is not makes no rows.
-- Every time zone begins its days at a quarter of an hour.
select cast(ended_at / :step as integer) * :step as quarter, iif(:by_caller, caller, '') as caller,
    iif(:by_project, project, null) as project, iif(:by_model, model, '') as model,
    iif(:by_account, account, null) as account,
    count(*) as calls, sum(outcome in ('failed', 'refused', 'unreached', 'lost')) as failed,
    coalesce(sum(input), 0) as input, coalesce(sum(cached), 0) as cached,
    coalesce(sum(output), 0) as output, coalesce(sum(reasoning), 0) as reasoning,
    coalesce(sum(cost), 0) as cost, sum(cost is null and counts = 1) as unpriced
from calls where ended_at >= :since and ended_at < :until
group by 1, 2, 3, 4, 5 order by 1;

-- name: prune
-- Rows whose time is over, a few at a time.
delete from calls where id in (select id from calls where ended_at < :before limit :limit);
