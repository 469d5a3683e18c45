-- Keys of callers, as SHA-256 digests; a key itself is nowhere. One that is revoked or expired stays, so
-- that the log can say which it was. Times are unix seconds.
create table caller_keys (
    id           text not null primary key,
    caller       text not null,
    digest       blob not null unique check (length(digest) = 32),
    label        text not null,
    created_at   real not null,
    expires_at   real,
    revoked_at   real,
    last_used_at real
) strict, without rowid;
