-- A cap is parted between realtime and queued requests. parked says that a lane
-- is not claimed from, for whatever reason: its own cap, a rate limit until
-- parked_until, or, where gated, its tenant's gate.
alter table lane
	add column reserve_realtime integer not null default 0,
	add column reserve_queued   integer not null default 0,
	add column realtime         integer not null default 0,
	add column gated            boolean not null default false;
create index lane_edf on lane (model, head_deadline, id) where ready and not parked;
create index lane_gated on lane (tenant) where gated;
create index lane_tenant on lane (tenant) where ready;

-- One row for each tenant with a cap over all its lanes. running and realtime
-- change only under the row's lock, with the requests that they count.
create table tenant_gate (
	tenant           text    primary key,
	cap              integer not null,
	reserve_realtime integer not null default 0,
	reserve_queued   integer not null default 0,
	running          integer not null default 0,
	realtime         integer not null default 0
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- The lane, of the same tenant, of the model that serves the request in place
-- of its own. It holds a slot there too.
alter table request add column escalated bigint;
create index request_escalated on request (escalated) where escalated is not null;
-- A lane whose model can serve nothing now is asked for what escalates only.
create index request_near on request (lane, deadline) where deadline is not null and state = 0;

-- An upstream's model. limit_calls is 0 where it has no limit.
create table target (
	id           text    primary key,
	limit_calls  integer not null default 0,
	parked_until timestamptz
) with (fillfactor = 50);
-- What a worker may have in flight there, as long as it lives.
create table target_share (
	target text    not null,
	worker bigint  not null,
	slots  integer not null,
	want   integer not null,
	primary key (target, worker)
) with (fillfactor = 50);
create index target_share_worker on target_share (worker);

-- What is large goes by the day, so that old days can be dropped. What is there
-- stays where it is, in the partition of all days that have none of their own.
alter table step rename to step_default;
alter index step_pkey rename to step_default_pkey;
create table step (like step_default including defaults, primary key (request, scope, ordinal)) partition by range (request);
alter table step attach partition step_default default;

alter table event rename to event_default;
alter index event_pkey rename to event_default_pkey;
create table event (like event_default including defaults, primary key (request, seq)) partition by range (request);
alter table event attach partition event_default default;

alter table decision rename to decision_default;
alter index decision_pkey rename to decision_default_pkey;
create table decision (like decision_default including defaults, primary key (request, step, try, kind, attempt)) partition by range (request);
alter table decision attach partition decision_default default;
