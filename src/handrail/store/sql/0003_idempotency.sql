-- Which create was made under which Idempotency-Key. Key and body only as keyed digests. A row
-- outlives its run for a while, so that the key of a deleted response does not make a new one.
create table idempotency (
    caller     text not null,
    key        blob not null,
    body       blob not null,
    run_id     text not null,
    kept_until real not null,
    primary key (caller, key)
) strict, without rowid;

create index idempotency_expiring on idempotency (kept_until);
