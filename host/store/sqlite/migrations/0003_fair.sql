-- A cap is parted between realtime and queued requests. parked says that a lane
-- is not claimed from, for whatever reason: its own cap, a rate limit until
-- parked_until, or, where gated, its tenant's gate.
alter table lane add column reserve_realtime integer not null default 0;
alter table lane add column reserve_queued integer not null default 0;
alter table lane add column realtime integer not null default 0;
alter table lane add column gated integer not null default 0;
create index lane_edf on lane (model, head_deadline, id) where ready = 1 and parked = 0;
create index lane_gated on lane (tenant) where gated = 1;

-- One row for each tenant with a cap over all its lanes.
create table tenant_gate (
	tenant           text    primary key,
	cap              integer not null,
	reserve_realtime integer not null default 0,
	reserve_queued   integer not null default 0,
	running          integer not null default 0,
	realtime         integer not null default 0
) without rowid;

-- The lane, of the same tenant, of the model that serves the request in place
-- of its own. It holds a slot there too.
alter table request add column escalated integer;
create index request_escalated on request (escalated) where escalated is not null;

-- An upstream's model. limit_calls is 0 where it has no limit.
create table target (
	id           text    primary key,
	limit_calls  integer not null default 0,
	parked_until integer
) without rowid;
-- What a worker may have in flight there, as long as it lives.
create table target_share (
	target text    not null,
	worker integer not null,
	slots  integer not null,
	want   integer not null,
	primary key (target, worker)
) without rowid;
create index target_share_worker on target_share (worker);
