-- What ended is removed by its age.
create index request_finished on request (finished) where finished is not null and worker is null;
create index idempotency_created on idempotency (created);

-- Lanes are found when a rate limit's time is up, and by a tenant that has
-- something queued.
create index lane_due on lane (parked_until) where parked_until is not null;
create index lane_tenant on lane (tenant) where ready = 1;

-- Those that another model may serve since their deadline is near.
create index request_near on request (lane, deadline, id) where deadline is not null and state = 0;

-- A request without a deadline counts as due an hour after it came, and lanes
-- with a cap count those of realtime requests.
update request set ord = created + 3600000 where deadline is null and state < 10 and ord = created;
update lane set head_deadline = (
	select r.ord from request r where r.lane = lane.id and r.state = 0
	order by r.ord, r.id limit 1);
update lane set realtime = (
	select count(*) from request r where r.lane = lane.id and r.worker is not null and r.realtime = 1)
where cap is not null;
