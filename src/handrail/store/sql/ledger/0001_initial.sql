-- One row an upstream call. Nothing of what was asked or answered. Times are unix seconds, cost is
-- in nano-dollars; null is unknown. `counts` is 0 for what cannot have run, or costs nothing by its kind.
create table calls (
    id          text    not null primary key,
    started_at  real    not null,
    ended_at    real    not null,
    seconds     real    not null,
    caller      text    not null,
    project     text,
    target      text    not null,
    account     text,
    model       text    not null,
    sent_model  text    not null,
    mode        text    not null,
    endpoint    text    not null,
    response_id text    not null,
    cause       text    not null,
    status      integer,
    outcome     text    not null,
    input       integer,
    cached      integer,
    output      integer,
    reasoning   integer,
    tier        text,
    cost        integer,
    counts      integer not null
) strict;

create index calls_ended on calls (ended_at);
