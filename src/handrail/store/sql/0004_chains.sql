-- Which run goes on from which: a link and no copy, so that deleting a run destroys what it said.
alter table runs add column previous text;

create index runs_by_previous on runs (previous) where previous is not null;
