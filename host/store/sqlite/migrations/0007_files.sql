-- state: 0 uploading, 1 ready, 2 gone, 3 growing. batch is the one whose output
-- or errors it holds. touched is when something of it last came.
create table file (
	id      blob    primary key,
	tenant  text    not null,
	name    text    not null,
	purpose text    not null,
	bytes   integer not null default 0,
	state   integer not null,
	batch   blob,
	created integer not null,
	touched integer not null,
	expires integer
) without rowid;
create index file_listed on file (tenant, id) where state in (1, 3);
create index file_expires on file (expires) where expires is not null and state = 1;
create index file_upload on file (touched) where state = 0;
create index file_gone on file (id) where state = 2;

create table file_chunk (
	file blob    not null,
	n    integer not null,
	data blob    not null,
	primary key (file, n)
);

-- due is when a host should go on with it; null: never.
create table batch (
	id          blob    primary key,
	tenant      text    not null,
	endpoint    text    not null,
	completion_window text    not null,
	input       blob    not null,
	input_bytes integer not null,
	parent      blob,
	metadata    blob,
	state       integer not null default 0,
	version     integer not null default 1,
	due         integer,
	created     integer not null,
	expires     integer not null,
	started     integer,
	finalized   integer,
	canceling   integer,
	ended       integer,
	output      blob,
	errors      blob,
	output_keep integer not null default 0,
	line        integer not null default 0,
	pos         integer not null default 0,
	total       integer not null default 0,
	completed   integer not null default 0,
	failed      integer not null default 0,
	refused     integer not null default 0,
	faults      blob,
	settled     integer not null default 0
) without rowid;
create index batch_tenant on batch (tenant, id);
create index batch_due on batch (due) where due is not null;
create index batch_reads on batch (input) where state in (0, 1);
create index batch_ended on batch (ended) where settled = 1;

-- request is null until the line became one, or never did: then status says why.
create table batch_line (
	batch     blob    not null,
	line      integer not null,
	custom_id text    not null,
	start     integer not null,
	size      integer not null,
	forget    integer not null default 0,
	request   blob,
	status    integer not null default 0,
	refusal   blob,
	primary key (batch, line)
) without rowid;
create unique index batch_line_custom on batch_line (batch, custom_id);
