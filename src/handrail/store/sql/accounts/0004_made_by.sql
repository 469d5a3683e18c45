-- Who made something that nobody else can read: the id of an account or, where a target has but the
-- credential of the settings, `target:NAME`. So it refers to no table any more; the trigger forgets what
-- an account made that is removed.
create table made_by (
    digest blob not null primary key,
    maker  text not null,
    until  real not null
) strict, without rowid;

insert into made_by (digest, maker, until) select digest, account, until from makers;

drop table makers;

create index made_by_end on made_by (until);

create trigger forget_maker after delete on accounts begin
    delete from made_by where maker = old.id;
end;
