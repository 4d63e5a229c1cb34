-- state: 0 uploading, 1 ready, 2 gone, 3 growing. batch is the one whose output
-- or errors it holds. touched is when something of it last came.
create table file (
	id      uuid        primary key,
	tenant  text        not null,
	name    text        not null,
	purpose text        not null,
	bytes   bigint      not null default 0,
	state   smallint    not null,
	batch   uuid,
	created timestamptz not null default now(),
	touched timestamptz not null default now(),
	expires timestamptz
) with (fillfactor = 85);
create index file_listed on file (tenant, id) where state in (1, 3);
create index file_expires on file (expires) where expires is not null and state = 1;
create index file_upload on file (touched) where state = 0;
create index file_gone on file (id) where state = 2;

create table file_chunk (
	file uuid    not null,
	n    integer not null,
	data bytea   not null,
	primary key (file, n)
);

-- due is when a host should go on with it; null: never.
create table batch (
	id                uuid        primary key,
	tenant            text        not null,
	endpoint          text        not null,
	completion_window text        not null,
	input             uuid        not null,
	input_bytes       bigint      not null,
	parent            uuid,
	metadata          bytea,
	state             smallint    not null default 0,
	version           bigint      not null default 1,
	due               timestamptz default now(),
	created           timestamptz not null default now(),
	expires           timestamptz not null,
	started           timestamptz,
	finalized         timestamptz,
	canceling         timestamptz,
	ended             timestamptz,
	output            uuid,
	errors            uuid,
	output_keep       bigint      not null default 0, -- microseconds
	line              integer     not null default 0,
	pos               bigint      not null default 0,
	total             integer     not null default 0,
	completed         integer     not null default 0,
	failed            integer     not null default 0,
	refused           integer     not null default 0,
	faults            bytea,
	settled           boolean     not null default false
) with (fillfactor = 50);
create index batch_tenant on batch (tenant, id);
create index batch_due on batch (due) where due is not null;
create index batch_reads on batch (input) where state in (0, 1);
create index batch_ended on batch (ended) where settled;

-- request is null until the line became one, or never did: then status says why.
create table batch_line (
	batch     uuid    not null,
	line      integer not null,
	custom_id text    not null,
	start     bigint  not null,
	size      integer not null,
	forget    boolean not null default false,
	request   uuid,
	status    integer not null default 0,
	refusal   bytea,
	primary key (batch, line)
) with (fillfactor = 85);
create unique index batch_line_custom on batch_line (batch, custom_id);
