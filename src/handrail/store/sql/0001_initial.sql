-- Everything a caller could read back (request, response, segments.body) is sealed under the run's
-- own data key; without wrapped_key it is noise. Times are unix seconds.
create table runs (
    ord         integer primary key autoincrement,
    id          text    not null unique,
    caller      text    not null,
    state       text    not null,
    created_at  real    not null,
    target      text    not null,
    plan        blob    not null,
    wrapped_key blob    not null,
    request     blob    not null,
    response    blob    not null,
    owner       text,
    attempt     integer not null default 0,
    fence       integer not null default 0,
    calls       integer not null default 0,
    last_seq    integer not null,
    sent_at     real,
    finished_at real,
    expires_at  real
) strict;

create index runs_waiting on runs (caller, ord) where state = 'queued' and owner is null;
create index runs_owned on runs (caller) where owner is not null;
create index runs_expiring on runs (expires_at) where expires_at is not null;

create table segments (
    run_id    text    not null references runs (id) on delete cascade,
    first_seq integer not null,
    last_seq  integer not null,
    body      blob    not null,
    primary key (run_id, first_seq)
) strict, without rowid;

create table items (
    caller  text not null,
    item_id text not null,
    run_id  text not null references runs (id) on delete cascade,
    primary key (caller, item_id)
) strict, without rowid;

create index items_of_run on items (run_id);

create table meta (
    name  text primary key,
    value blob not null
) strict, without rowid;
