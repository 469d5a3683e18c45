-- Credentials of upstreams, and what is known about whether they may be used now. A credential is
-- sealed; `version` counts how often it was written, so that two who refresh it notice each other.
create table accounts (
    id            text    not null primary key,
    name          text    not null unique,
    target        text    not null,
    kind          text    not null check (kind in ('key', 'oauth', 'settings')),
    credential    blob    not null,
    version       integer not null default 1,
    expires_at    real,
    plan          text,
    state         text    not null default 'active'
                  check (state in ('active', 'paused', 'draining', 'ended')),
    why_ended     text,
    weight        real    not null default 1.0,
    tags          text    not null default '[]',
    added_at      real    not null,
    refreshed_at  real,
    lease_owner   text,
    lease_until   real
) strict, without rowid;

-- Until when an account is not to be used for a scope: everything ('') or one model.
create table cooldowns (
    account text not null references accounts (id) on delete cascade,
    scope   text not null,
    until   real not null,
    reason  text not null,
    guessed integer not null,
    primary key (account, scope)
) strict, without rowid;

-- How much of a window of the upstream's own limits is used, as it last said.
create table quota (
    account      text not null references accounts (id) on delete cascade,
    name         text not null,
    used_percent real not null,
    resets_at    real,
    seconds      integer,
    seen_at      real not null,
    primary key (account, name)
) strict, without rowid;

-- Which account made something that only it can read. A keyed digest, and no content.
create table makers (
    digest  blob not null primary key,
    account text not null references accounts (id) on delete cascade,
    until   real not null
) strict, without rowid;

create index makers_by_end on makers (until);

create table settings (
    name  text not null primary key,
    value text not null
) strict, without rowid;
