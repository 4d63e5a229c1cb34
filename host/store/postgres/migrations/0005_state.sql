-- What only the run may read goes with the end of the request. A request may be
-- a line of a batch.
alter table request
	add column secret bytea,
	add column batch  uuid,
	add column line   integer;
create index request_batch on request (batch, state) where batch is not null;

create index idempotency_created on idempotency (created);

-- version counts what was added and removed, and an item's seq is the version
-- that it came with. holder is the request that goes on from the conversation,
-- until that is final.
create table conversation (
	id       uuid        primary key,
	tenant   text        not null,
	created  timestamptz not null default now(),
	metadata bytea       not null,
	version  bigint      not null,
	holder   uuid
) with (fillfactor = 85);
create table conversation_item (
	conversation uuid   not null,
	seq          bigint not null,
	id           text   not null,
	data         bytea  not null,
	primary key (conversation, seq),
	unique (conversation, id)
);
