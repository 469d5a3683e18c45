-- name: add_key
-- A new key of a caller.
insert into caller_keys (id, caller, digest, label, created_at, expires_at)
values (:id, :caller, :digest, :label, :created_at, :expires_at);

-- name: keys
-- All of them, also those that open nothing any more.
select id, caller, digest, label, created_at, expires_at, revoked_at, last_used_at
from caller_keys order by created_at, id;

-- name: key
-- One of them.
select id, caller, digest, label, created_at, expires_at, revoked_at, last_used_at
from caller_keys where id = :id;

-- name: revoke_key
-- It opens nothing from now on; when that was said first stays.
update caller_keys set revoked_at = :now where id = :id and revoked_at is null;

-- name: end_key
-- Until when a key that has a successor lives on.
update caller_keys set expires_at = :expires_at where id = :id;

-- name: use_key
-- When it was used last; never back.
update caller_keys set last_used_at = :at
where id = :id and (last_used_at is null or last_used_at < :at);
