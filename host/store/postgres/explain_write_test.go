package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
)

// fillAll adds requests of every state: six of ten wait in their lanes, two run,
// one waits for later and one ended.
const fillAll = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline, not_before, attempt, worker, finished)
select lpad(to_hex(i), 32, '0')::uuid, l.ids[1 + i %% cardinality(l.ids)], '/p', 'default', false, true, true, false, s.state,
	now() + interval '30 minutes' + i * interval '1 millisecond', case when i %% 3 = 0 then now() + interval '1 hour' end,
	case when s.state = 3 then now() + interval '1 hour' end, 1, case when s.state = 2 then %d end, case when s.state = 10 then now() end
from generate_series(%d, %d) i, (select array_agg(id order by id) as ids from lane where model = 'm') l,
	lateral (select (array[0, 0, 0, 0, 0, 0, 2, 2, 3, 10])[1 + i %% 10] as state) s;
update lane set ready = true, head_deadline = (select min(ord) from request where lane = lane.id and state = 0)
where model = 'm'`

// due adds what sweeps move: 100 requests past their deadline, 100 whose wait is
// over and 100 of a dead worker.
const due = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline, not_before, attempt, worker)
select ('d' || lpad(to_hex(i), 31, '0'))::uuid, l.ids[1 + i %% cardinality(l.ids)], '/v1/responses', 'default', false, true, true, false, s.state,
	now() + interval '1 hour', case when s.state = 0 then now() - interval '1 second' end,
	case when s.state = 3 then now() - interval '1 second' end, 1, case when s.state = 2 then %d end
from generate_series(1, 300) i, (select array_agg(id order by id) as ids from lane where model = 'm') l,
	lateral (select (array[0, 2, 3])[1 + i %% 3] as state) s`

// TestPlansOfWrites explains what commits, cancels and sweeps run with
// statistics from when nothing was there.
func TestPlansOfWrites(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	var workers [2]int64
	for i := range workers {
		p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		workers[i] = p.Worker
	}
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	setup := `
alter table request set (autovacuum_enabled = off); alter table lane set (autovacuum_enabled = off);
alter table tenant_gate set (autovacuum_enabled = off);
analyze;
insert into lane (tenant, model, cap, gated, parked) select 't' || i, 'm', case when i %% 2 = 0 then 1000000 end, i %% 4 = 0, i %% 4 = 0
from generate_series(1, 400) i;
insert into tenant_gate (tenant, cap) select 't' || i, 1000000 from generate_series(1, 400) i;
update worker set reaped = true where id = %d;` + due
	if _, err := conn.PgConn().Exec(t.Context(), fmt.Sprintf(setup, workers[1], workers[1])).ReadAll(); err != nil {
		t.Fatal(err)
	}
	grow(t, conn, writeStatements(), []bool{true}, func(from, to int) string { return fmt.Sprintf(fillAll, workers[0], from, to) })
}

// writeStatements are statements with arguments that fit fillAll.
func writeStatements() map[string][]any {
	var running, pending []string // in 400 lanes
	for i := 1; len(running) < 100; i++ {
		if i%10 == 6 {
			running = append(running, fmt.Sprintf("%032x", i))
		}
		if i%10 == 1 {
			pending = append(pending, fmt.Sprintf("%032x", i))
		}
	}
	n := len(running)
	lanes, tenants := make([]int64, n), make([]string, n)
	for i := range lanes {
		lanes[i], tenants[i] = int64(4*i+1), fmt.Sprint("t", 4*i+4)
	}
	ones, yes, no, none, text := all(n, 1), all(n, true), all(n, false), all(n, 0), all(n, "x")
	return map[string][]any{
		"expire":      {500},
		"promote":     {500},
		"reap":        {500, 3},
		"heal":        {0, 500, 7},
		"wake":        {pending},
		"openGated":   {tenants},
		"occupyLanes": {lanes, ones, none},
		"occupyGates": {tenants, ones, none},
		"cancel":      {pending[0], []int{0, 1, 2, 3}, "t2", "client_gone"},
		"lockOwners":  {running},
		"lockLanes":   {running, running[:5], running[:5], lanes, all(n, 1_000_000), no, no},
		"lockGates":   {running, tenants},
		"lockFreed":   {running},
		"change":      {running, ones, all(n, 2), all(n, 10), yes, no, yes, none, none, text, text},
		"letGo":       {running, ones, all(n, 2), all(n, 2), no, no, yes, none, none, text, text},
		"retry":       {running, ones, all(n, 2), all(n, 3), yes, no, yes, ones, all(n, 1_000_000), text, text},
	}
}

// all is n times the same.
func all[T any](n int, v T) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}
