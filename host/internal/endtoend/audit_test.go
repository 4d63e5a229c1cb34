package endtoend_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"
)

// auditSchema makes the database of a test note every move of a request and
// every counter above its cap, in the transaction that makes it.
const auditSchema = `
create schema audit;
create table audit.move (
	n           bigint      generated always as identity,
	at          timestamptz not null default clock_timestamp(),
	xact        xid8        not null default pg_current_xact_id(),
	request     uuid        not null,
	was         smallint,
	state       smallint    not null,
	attempt_was integer,
	attempt     integer     not null,
	worker_was  bigint,
	worker      bigint
);
create table audit.result (request uuid not null, xact xid8 not null default pg_current_xact_id());
create table audit.worker as select id, host from worker; -- a worker's row goes when nothing names it
create table audit.over (at timestamptz not null default clock_timestamp(), what text not null);

create function audit.moved() returns trigger language plpgsql as $$ begin
	insert into audit.move (request, was, state, attempt_was, attempt, worker_was, worker)
	values (new.id, old.state, new.state, old.attempt, new.attempt, old.worker, new.worker);
	return null;
end $$;
create trigger audit_inserted after insert on request for each row execute function audit.moved();
create trigger audit_moved after update on request for each row
	when (old.state <> new.state or old.attempt <> new.attempt or old.worker is distinct from new.worker)
	execute function audit.moved();

create function audit.ended() returns trigger language plpgsql as $$ begin
	insert into audit.result (request) values (new.request);
	return null;
end $$;
create trigger audit_ended after insert on result for each row execute function audit.ended();

create function audit.joined() returns trigger language plpgsql as $$ begin
	insert into audit.worker values (new.id, new.host);
	return null;
end $$;
create trigger audit_joined after insert on worker for each row execute function audit.joined();

create function audit.exceeded() returns trigger language plpgsql as $$ begin
	insert into audit.over (what) values (tg_table_name || ' ' || to_json(new)::text);
	return null;
end $$;
create trigger audit_exceeded after insert or update on lane for each row
	when (new.running < 0 or new.running > new.cap) execute function audit.exceeded();
create trigger audit_exceeded after insert or update on tenant_gate for each row
	when (new.running < 0 or new.running > new.cap) execute function audit.exceeded();`

// selectSample reads, at one moment, each counter beside what it counts: of
// lanes and gates the rows, of targets the slots of workers that live.
const selectSample = `
with owned as materialized (
	select l.id as lane, l.tenant, r.escalated, r.realtime
	from request r join lane l on l.id = r.lane where r.worker is not null)
select 'lane ' || l.tenant || ' ' || l.model, l.cap, l.reserve_realtime, l.running, l.realtime, n.owned, n.realtime
from lane l cross join lateral (
	select count(*) as owned, count(*) filter (where o.realtime) as realtime
	from owned o where o.lane = l.id or o.escalated = l.id) n
where l.cap is not null
union all
select 'gate ' || g.tenant, g.cap, g.reserve_realtime, g.running, g.realtime, n.owned, n.realtime
from tenant_gate g cross join lateral (
	select count(*) as owned, count(*) filter (where o.realtime) as realtime
	from owned o where o.tenant = g.tenant) n
union all
select 'target ' || t.id, t.limit_calls, 0, n.slots, 0, n.slots, 0
from target t cross join lateral (
	select coalesce(sum(s.slots), 0)::bigint as slots
	from target_share s join worker w on w.id = s.worker where s.target = t.id and not w.reaped) n
where t.limit_calls > 0`

// sample is one counter at one moment.
type sample struct {
	what                              string
	limit, reserve, running, realtime int
	owned, ownedRealtime              int
}

// wrong says what is wrong with the counter, if anything.
func (s sample) wrong() string {
	switch {
	case s.running != s.owned || s.realtime != s.ownedRealtime:
		return "the counter differs from what it counts"
	case s.owned > s.limit:
		return "it is above its limit"
	case s.owned-s.ownedRealtime > s.limit-s.reserve:
		return "queued requests have slots that are kept for realtime ones"
	}
	return ""
}

// audit looks at the database of a test from outside of the hosts.
type audit struct {
	t  *testing.T
	db *sql.DB
}

// newAudit begins an audit of a database that a host has migrated.
func newAudit(t *testing.T, url string) *audit {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(auditSchema); err != nil {
		t.Fatalf("audit: %v", err)
	}
	return &audit{t: t, db: db}
}

// samples reads every counter once.
func (a *audit) samples(ctx context.Context) ([]sample, error) {
	rows, err := a.db.QueryContext(ctx, selectSample)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []sample
	for rows.Next() {
		var s sample
		if err := rows.Scan(&s.what, &s.limit, &s.reserve, &s.running, &s.realtime, &s.owned, &s.ownedRealtime); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// watch samples every 50 ms until stop, which returns how many samples there
// were and the most that each counter was at. The database may be away.
func (a *audit) watch() (stop func() (taken int, most map[string]int)) {
	ctx, cancel := context.WithCancel(context.Background())
	most, taken, wrong := map[string]int{}, 0, 0
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			all, err := a.samples(ctx)
			if err != nil {
				continue
			}
			taken++
			for _, s := range all {
				most[s.what] = max(most[s.what], s.owned)
				if w := s.wrong(); w != "" && wrong < 20 {
					wrong++
					a.t.Errorf("sample %d at %s: %+v: %s", taken, time.Now().Format(time.TimeOnly), s, w)
				}
			}
		}
	})
	return func() (int, map[string]int) {
		cancel()
		wg.Wait()
		return taken, most
	}
}

// open is how many requests have not ended, or still have a worker.
func (a *audit) open() (n int, err error) {
	err = a.db.QueryRow("select count(*) from request where state < 10 or worker is not null").Scan(&n)
	return n, err
}

// none checks that a query, which selects what must not be, selects nothing.
func (a *audit) none(what, query string) {
	a.t.Helper()
	rows, err := a.db.Query(query)
	if err != nil {
		a.t.Fatalf("%s: %v", what, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		a.t.Fatal(err)
	}
	n := 0
	for ; rows.Next(); n++ {
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			a.t.Fatal(err)
		}
		if n < 10 {
			line := ""
			for i, v := range values {
				line += fmt.Sprintf(" %s=%s", columns[i], v.String)
			}
			a.t.Errorf("%s:%s", what, line)
		}
	}
	if err := rows.Err(); err != nil {
		a.t.Fatal(err)
	}
	if n > 10 {
		a.t.Errorf("%s: %d in all", what, n)
	}
}

// checkRows checks what SQL alone can tell.
func (a *audit) checkRows() {
	a.t.Helper()
	a.none("not ended, or not let go of", "select id, state, attempt, worker from request where state < 10 or worker is not null")
	a.none("entered a final state not exactly once", `
		select r.id, r.state, count(m.n) from request r
		left join audit.move m on m.request = r.id and m.state >= 10 and m.was is distinct from m.state
		group by r.id, r.state having count(m.n) <> 1`)
	a.none("gap in the events", `
		select request, min(seq), max(seq), count(*) from event group by request
		having min(seq) <> 0 or max(seq) + 1 <> count(*)`)
	a.none("result that was not written with the end of the current attempt", `
		select a.request, r.state, r.attempt from audit.result a join request r on r.id = a.request
		where not exists (select from audit.move m where m.request = a.request and m.xact = a.xact
			and m.was = 2 and m.state in (10, 11) and m.state = r.state and m.attempt_was = r.attempt and m.attempt = r.attempt)`)
	a.none("result of a request that was not completed or failed", `
		select r.id, r.state from result s join request r on r.id = s.request where r.state not in (10, 11)`)
	a.none("completed and stored, without a result", `
		select r.id from request r left join result s on s.request = r.id where r.state = 10 and r.store and s.request is null`)
	a.none("two results", "select request, count(*) from audit.result group by request having count(*) > 1")
	a.none("step of a completed request that is not settled", `
		select s.request, s.scope, s.ordinal, s.state from step s join request r on r.id = s.request where not s.settled and r.state = 10`)
	a.none("counter that was above its cap when it was written", "select * from audit.over")
	a.none("counter of a lane at rest", "select tenant, model, running, realtime from lane where running <> 0 or realtime <> 0")
	a.none("counter of a gate at rest", "select tenant, running, realtime from tenant_gate where running <> 0 or realtime <> 0")
}
