-- A lane that begins to compete is level with the least served. Among lanes in
-- step the newest comes first, so that it does not wait for a whole round.
drop index lane_fair;
create index lane_fair on lane (model, vtime, id desc) where ready = 1 and parked = 0;
