-- One row a process start. Ids are never used again.
create table worker (
	id          bigint generated always as identity primary key,
	host        text        not null,
	version     text        not null,
	started     timestamptz not null default now(),
	lease_until timestamptz not null,
	draining    boolean     not null default false,
	reaped      boolean     not null default false
) with (fillfactor = 50);

-- One row for each tenant and model that has or had work. running is kept only
-- where cap is not null.
create table lane (
	id            bigint generated always as identity primary key,
	tenant        text             not null,
	model         text             not null,
	weight        double precision not null default 1,
	cap           integer,
	running       integer          not null default 0,
	vtime         double precision not null default 0,
	ready         boolean          not null default false,
	parked        boolean          not null default false,
	parked_until  timestamptz,
	head_deadline timestamptz,
	unique (model, tenant)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index lane_fair on lane (model, vtime, id) where ready and not parked;
create index lane_vtime on lane (model, vtime);

-- Narrow and hot. worker stays on a canceled row until the worker lets go.
create table request (
	id         uuid        primary key,
	lane       bigint      not null,
	path       text        not null,
	tier       text        not null,
	stream     boolean     not null,
	background boolean     not null,
	store      boolean     not null,
	realtime   boolean     not null,
	state      smallint    not null,
	ord        timestamptz not null,
	deadline   timestamptz,
	not_before timestamptz,
	attempt    integer     not null default 0,
	failures   integer     not null default 0,
	reaps      integer     not null default 0,
	worker     bigint,
	class      text        not null default '',
	code       text        not null default '',
	created    timestamptz not null default now(),
	started    timestamptz,
	finished   timestamptz,
	deleted    boolean     not null default false
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01);
create index request_lane on request (lane, ord, id) where state = 0;
create index request_waiting on request (not_before) where state = 3;
create index request_owned on request (worker) where worker is not null;
create index request_deadline on request (deadline) where deadline is not null and state in (0, 3);
create index request_deleted on request (id) where deleted;

-- Written once; a partition a day, made ahead by the driver, so that old days
-- can be dropped.
create table body (
	request uuid  primary key,
	data    bytea not null
) partition by range (request);
create table body_default partition of body default;
create table result (
	request      uuid    primary key,
	status       integer not null,
	content_type text    not null,
	data         bytea   not null
) partition by range (request);
create table result_default partition of result default;

-- call_id and tool are a model's own text, so they are bytes.
create table step (
	request     uuid    not null,
	scope       text    not null,
	ordinal     integer not null,
	kind        text    not null,
	state       text    not null,
	settled     boolean not null,
	call_id     bytea   not null,
	tool        bytea   not null,
	plugin      text    not null,
	effects     text    not null,
	tries       integer not null,
	attempt     integer not null,
	generation  text    not null,
	input       bytea,
	output      bytea,
	class       text    not null,
	status      integer not null,
	code        text    not null,
	retry_after bigint  not null,
	usage       text    not null,
	fuel        bigint  not null,
	primary key (request, scope, ordinal)
);

create table event (
	request uuid   not null,
	seq     bigint not null,
	data    bytea  not null,
	primary key (request, seq)
);

create table decision (
	request    uuid        not null,
	step       text        not null,
	try        integer     not null,
	kind       text        not null,
	attempt    integer     not null,
	question   bytea,
	answer     bytea,
	generation text        not null,
	fallback   text        not null,
	fuel       bigint      not null,
	made       timestamptz not null default now(),
	primary key (request, step, try, kind, attempt)
);

-- Append-only, outlives its request, written even when the write was fenced out.
create table usage (
	request     uuid        not null,
	scope       text        not null,
	ordinal     integer     not null,
	try         integer     not null,
	tenant      text        not null,
	model       text        not null,
	target      text        not null,
	input       bigint      not null,
	output      bigint      not null,
	cached      bigint      not null,
	cache_write bigint      not null,
	reasoning   bigint      not null,
	used        timestamptz not null default now(),
	primary key (request, scope, ordinal, try)
);

create table idempotency (
	tenant    text        not null,
	key       text        not null,
	body_hash bytea       not null,
	request   uuid        not null,
	created   timestamptz not null default now(),
	primary key (tenant, key)
);

create table kv (
	tenant  text        not null,
	plugin  text        not null,
	key     text        not null,
	value   bytea       not null,
	written timestamptz not null default now(),
	primary key (tenant, plugin, key)
);
