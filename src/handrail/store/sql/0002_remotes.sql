-- Responses that an upstream runs and keeps: which caller made each, and where. Nothing of their
-- content. Times are unix seconds.
create table remotes (
    id         text not null primary key,
    caller     text not null,
    target     text not null,
    created_at real not null,
    expires_at real not null
) strict, without rowid;

create index remotes_expiring on remotes (expires_at);
