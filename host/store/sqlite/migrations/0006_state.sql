-- What only the run may read: it goes with the end of the request.
alter table request add column secret blob;

-- Which line of which batch a request is.
alter table request add column batch blob;
alter table request add column line integer;
create index request_batch on request (batch, state) where batch is not null;

-- version counts what was added and removed, and an item's seq is the version
-- that it came with. holder is the request that goes on from the conversation,
-- until that is final.
create table conversation (
	id       blob    primary key,
	tenant   text    not null,
	created  integer not null,
	metadata blob    not null,
	version  integer not null,
	holder   blob
);
create table conversation_item (
	conversation blob    not null,
	seq          integer not null,
	id           text    not null,
	data         blob    not null,
	primary key (conversation, seq),
	unique (conversation, id)
);
