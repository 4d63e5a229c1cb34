-- Times are milliseconds since 1970, by the clock of the database.

-- One row a process start. Ids are never used again.
create table worker (
	id          integer primary key autoincrement,
	host        text    not null,
	version     text    not null,
	started     integer not null,
	lease_until integer not null,
	draining    integer not null default 0,
	reaped      integer not null default 0
);

-- One row for each tenant and model that has or had work. running is kept only
-- where cap is not null.
create table lane (
	id            integer primary key,
	tenant        text    not null,
	model         text    not null,
	weight        real    not null default 1,
	cap           integer,
	running       integer not null default 0,
	vtime         real    not null default 0,
	ready         integer not null default 0,
	parked        integer not null default 0,
	parked_until  integer,
	head_deadline integer,
	unique (model, tenant)
);
create index lane_fair on lane (model, vtime, id) where ready = 1 and parked = 0;
create index lane_vtime on lane (model, vtime);

-- Narrow and hot. worker stays on a canceled row until the worker lets go.
create table request (
	id         blob    primary key,
	lane       integer not null,
	path       text    not null,
	tier       text    not null,
	stream     integer not null,
	background integer not null,
	store      integer not null,
	realtime   integer not null,
	state      integer not null,
	ord        integer not null,
	deadline   integer,
	not_before integer,
	attempt    integer not null default 0,
	failures   integer not null default 0,
	reaps      integer not null default 0,
	worker     integer,
	class      text    not null default '',
	code       text    not null default '',
	created    integer not null,
	started    integer,
	finished   integer,
	deleted    integer not null default 0
) without rowid;
create index request_lane on request (lane, ord, id) where state = 0;
create index request_waiting on request (not_before) where state = 3;
create index request_owned on request (worker) where worker is not null;
create index request_deadline on request (deadline) where deadline is not null and state in (0, 3);

-- Written once.
create table body (
	request blob primary key,
	data    blob not null
);
create table result (
	request      blob    primary key,
	status       integer not null,
	content_type text    not null,
	data         blob    not null
);

-- call_id and tool are a model's own text, so they are bytes.
create table step (
	request     blob    not null,
	scope       text    not null,
	ordinal     integer not null,
	kind        text    not null,
	state       text    not null,
	settled     integer not null,
	call_id     blob    not null,
	tool        blob    not null,
	plugin      text    not null,
	effects     text    not null,
	tries       integer not null,
	attempt     integer not null,
	generation  text    not null,
	input       blob,
	output      blob,
	class       text    not null,
	status      integer not null,
	code        text    not null,
	retry_after integer not null,
	usage       text    not null,
	fuel        integer not null,
	primary key (request, scope, ordinal)
);

create table event (
	request blob    not null,
	seq     integer not null,
	data    blob    not null,
	primary key (request, seq)
);

create table decision (
	request    blob    not null,
	step       text    not null,
	try        integer not null,
	kind       text    not null,
	attempt    integer not null,
	question   blob,
	answer     blob,
	generation text    not null,
	fallback   text    not null,
	fuel       integer not null,
	made       integer not null,
	primary key (request, step, try, kind, attempt)
);

-- Append-only, outlives its request, written even when the write was fenced out.
create table usage (
	request     blob    not null,
	scope       text    not null,
	ordinal     integer not null,
	try         integer not null,
	tenant      text    not null,
	model       text    not null,
	target      text    not null,
	input       integer not null,
	output      integer not null,
	cached      integer not null,
	cache_write integer not null,
	reasoning   integer not null,
	used        integer not null,
	primary key (request, scope, ordinal, try)
);

create table idempotency (
	tenant    text    not null,
	key       text    not null,
	body_hash blob    not null,
	request   blob    not null,
	created   integer not null,
	primary key (tenant, key)
) without rowid;

create table kv (
	tenant  text    not null,
	plugin  text    not null,
	key     text    not null,
	value   blob    not null,
	written integer not null,
	primary key (tenant, plugin, key)
);
