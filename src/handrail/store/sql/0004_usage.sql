-- How many bytes are kept, by caller and, under the empty name, of all. Counted is what a run holds
-- (plan, wrapped key, request, response, segments) as it is stored. Triggers keep the counts, so
-- that no statement can forget to: each change and its count are one transaction.
create table usage (
    caller text    not null primary key,
    bytes  integer not null,
    runs   integer not null
) strict, without rowid;

insert into usage (caller, bytes, runs)
select caller, sum(length(plan) + length(wrapped_key) + length(request) + length(response)
    + coalesce((select sum(length(body)) from segments where run_id = runs.id), 0)), count(*)
from runs group by caller;

insert into usage (caller, bytes, runs)
select '', coalesce(sum(bytes), 0), coalesce(sum(runs), 0) from usage;

create trigger run_counted after insert on runs begin
    insert into usage (caller, bytes, runs)
    select name.column1, length(plan) + length(wrapped_key) + length(request) + length(response), 1
    from runs, (values (''), (new.caller)) as name where ord = new.ord
    on conflict (caller) do update set bytes = bytes + excluded.bytes, runs = runs + 1;
end;

create trigger run_recounted after update of response on runs begin
    update usage set bytes = bytes + length(new.response) - length(old.response)
    where caller in ('', new.caller);
end;

create trigger run_uncounted before delete on runs begin
    update usage set runs = runs - 1, bytes = bytes
        - (select length(plan) + length(wrapped_key) + length(request) + length(response)
           from runs where ord = old.ord)
        - (select coalesce(sum(length(body)), 0) from segments where run_id = old.id)
    where caller in ('', old.caller);
end;

create trigger segment_counted after insert on segments begin
    update usage set bytes = bytes + length(new.body)
    where caller in ('', (select caller from runs where id = new.run_id));
end;

-- With its run gone already, a segment was counted off together with it.
create trigger segment_uncounted after delete on segments
when exists (select 1 from runs where id = old.run_id) begin
    update usage set bytes = bytes - length(old.body)
    where caller in ('', (select caller from runs where id = old.run_id));
end;
