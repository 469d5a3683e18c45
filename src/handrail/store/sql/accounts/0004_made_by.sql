-- Who made something that nobody else can read: the id of an account or, where a target has but the
-- credential of the settings, `target:NAME`. So it refers to no table any more: what an account has made
-- that was removed, nobody else can read either.
create table made_by (
    digest blob not null primary key,
    maker  text not null,
    until  real not null
) strict, without rowid;

insert into made_by (digest, maker, until) select digest, account, until from makers;

drop table makers;

create index made_by_end on made_by (until);
