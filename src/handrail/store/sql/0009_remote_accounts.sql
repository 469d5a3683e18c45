-- The account that an upstream's response was made with: only with that one is it found again.
alter table remotes add column account text;
