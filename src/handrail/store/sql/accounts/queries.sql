-- name: all
-- Every account, by name.
select id, name, target, kind, version, expires_at, plan, state, why_ended, weight, tags,
       added_at, refreshed_at, resumed, credits
from accounts order by name;

-- name: cooldowns
-- What is not over yet.
select account, scope, until, reason, guessed from cooldowns where until > :now;

-- name: quota
-- The windows of all accounts.
select account, name, used_percent, resets_at, seconds, about, seen_at from quota order by name;

-- name: credential
-- What is sealed, and which writing of it this is.
select credential, version from accounts where id = :id;

-- name: sealed
-- How many have a credential here.
select count(*) from accounts where kind <> 'settings';

-- name: add
-- A new account.
insert into accounts (id, name, target, kind, credential, expires_at, plan, added_at)
values (:id, :name, :target, :kind, :credential, :expires_at, :plan, :added_at);

-- name: declare
-- One whose credential stands in the settings.
insert into accounts (id, name, target, kind, credential, added_at)
values (:id, :name, :target, 'settings', x'', :now);

-- name: by_name
-- One account by what the operator calls it.
select id, target, kind from accounts where name = :name;

-- name: set_state
-- What the operator wants of it; who is active again has no past. One that has ended needs a new
-- credential; that of the settings may stand there already.
update accounts
set state = :state, why_ended = null, resumed = resumed + (:state = 'active')
where id = :id and (state <> 'ended' or (kind = 'settings' and :state = 'active'));

-- name: set_weight
-- Its share.
update accounts set weight = :weight where id = :id;

-- name: remove
-- It, and what is known about it.
delete from accounts where id = :id;

-- name: end
-- It is over until somebody signs in again; not if its credential has changed in between.
update accounts set state = 'ended', why_ended = :why, lease_owner = null, lease_until = null
where id = :id and version = :version and (:resumed is null or resumed = :resumed);

-- name: lease_state
-- What a refresh must know first.
select credential, version, state, lease_owner, lease_until from accounts where id = :id;

-- name: lease
-- Only this owner may refresh now.
update accounts set lease_owner = :owner, lease_until = :until where id = :id;

-- name: release
-- Somebody else may try.
update accounts set lease_owner = null, lease_until = null
where id = :id and lease_owner = :owner;

-- name: renew
-- A new credential takes the place of the one that it was made from.
update accounts
set credential = :credential, version = version + 1, expires_at = :expires_at,
    plan = coalesce(:plan, plan), refreshed_at = :now, lease_owner = null, lease_until = null
where id = :id and version = :version;

-- name: sign_in
-- A new credential from outside: it is what it was before, and may be used.
update accounts
set credential = :credential, version = version + 1, expires_at = :expires_at,
    plan = coalesce(:plan, plan), refreshed_at = :now, lease_owner = null, lease_until = null,
    state = case state when 'ended' then 'active' else state end, why_ended = null,
    resumed = resumed + 1
where id = :id;

-- name: cool
-- Not to be used for a scope; what was said holds over what is guessed, then the later end.
insert into cooldowns (account, scope, until, reason, guessed)
select id, :scope, :until, :reason, :guessed from accounts where id = :id
on conflict (account, scope) do update
set until = excluded.until, reason = excluded.reason, guessed = excluded.guessed
where excluded.guessed < guessed or (excluded.guessed = guessed and excluded.until > until);

-- name: warm
-- It may be used again, for everything.
delete from cooldowns where account = :id;

-- name: forget_cooldowns
-- What is over.
delete from cooldowns where until <= :now;

-- name: saw_quota
-- What the upstream last said about one window.
insert into quota (account, name, used_percent, resets_at, seconds, about, seen_at)
values (:id, :name, :used_percent, :resets_at, :seconds, :about, :now)
on conflict (account, name) do update set used_percent = excluded.used_percent,
    resets_at = excluded.resets_at, seconds = excluded.seconds, about = excluded.about,
    seen_at = excluded.seen_at;

-- name: told
-- Its plan and what it has paid for, as far as the upstream said so.
update accounts set plan = coalesce(:plan, plan), credits = coalesce(:credits, credits)
where id = :id;

-- name: made
-- Who made it.
insert into made_by (digest, maker, until) values (:digest, :maker, :until)
on conflict (digest) do update set maker = excluded.maker, until = excluded.until;

-- name: any_made
-- Whether anything at all is known.
select exists (select 1 from made_by);

-- name: maker
-- Who made it, if that is still known.
select maker from made_by where digest = :digest and until > :now;

-- name: forget_made
-- Of an account whose key may come back under another name.
delete from made_by where maker = :id;

-- name: forget_makers
-- What is over, a few at a time.
delete from made_by where digest in (select digest from made_by where until <= :now limit 10000);

-- name: forget_quota
-- Windows that were not told any more for a while.
delete from quota where seen_at <= :before;

-- name: get_setting
-- One value about all accounts.
select value from settings where name = :name;

-- name: set_setting
-- The same, written.
insert into settings (name, value) values (:name, :value)
on conflict (name) do update set value = excluded.value;

-- name: unset
-- No such value any more.
delete from settings where name = :name;

-- name: set_tags
-- What callers are allowed it by.
update accounts set tags = :tags where id = :id;
