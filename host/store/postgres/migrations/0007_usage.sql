-- The tokens that a batch's lines used together, as JSON; null until its end.
alter table batch add column usage bytea;
