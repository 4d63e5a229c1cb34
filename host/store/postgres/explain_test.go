package postgres_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// fill adds requests to the lanes of a model, half of them to the first, and
// sets no statistics: the tables were analyzed when they were empty.
const fill = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline)
select lpad(to_hex(i), 32, '0')::uuid, l.ids[case when i %% 2 = 0 then 1 else 1 + (i / 2) %% cardinality(l.ids) end],
	'/p', 'default', false, true, true, false, 0, now() + interval '30 minutes' + i * interval '1 millisecond',
	case when i %% 3 = 0 then now() + interval '30 minutes' + i * interval '1 millisecond' end
from generate_series(%d, %d) i, (select array_agg(id order by id) as ids from lane where model = 'm') l;
update lane set ready = true, head_deadline = (select min(ord) from request where lane = lane.id and state = 0) where model = 'm'`

// TestPlansOfClaims explains the statements of a claim with statistics from when
// nothing was there: they read about as much of a large backlog as of a small
// one, sort no backlog and pair no rows to drop them.
func TestPlansOfClaims(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	pulse, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	run := func(sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	run(`alter table request set (autovacuum_enabled = off); alter table lane set (autovacuum_enabled = off)`)
	run(`analyze`)
	run(`insert into lane (tenant, model) select 't' || i, 'm' from generate_series(1, 200) i`)
	within, other := time.Hour.Microseconds(), "other"
	claims := map[string][]any{
		"fair":   {"m", 50, pulse.Worker, 10, 0.0, nil, 1_000_000, nil, nil, true},
		"urgent": {"m", 10, pulse.Worker, 10, 0.0, within, 5, nil, nil, true},
		"near":   {"m", 10, pulse.Worker, 10, 0.0, within, 5, other, within, true},
		"probe":  {pulse.Worker, []string{"m"}, []float64{0}, []*int64{nil}, within},
	}
	small := make(map[string]int)
	for i, n := range []int{0, 10_000, 100_000} {
		if i > 0 {
			run(fmt.Sprintf(fill, []int{1, 10_001}[i-1], n))
		}
		for name, args := range claims {
			if i == 0 {
				continue
			}
			for _, guarded := range []bool{true, false} {
				p := explain(t, conn, guarded, postgres.Statements[name], args)
				for _, bad := range p.bad() {
					t.Errorf("%s of %d, guarded %t: %s\n%s", name, n, guarded, bad, p)
				}
				if i == 1 {
					small[name] = max(small[name], p.buffers())
				} else if got := p.buffers(); got == 0 || got > 2*small[name]+50 {
					t.Errorf("%s, guarded %t: %d buffers of %d requests, %d of a tenth\n%s", name, guarded, got, n, small[name], p)
				}
			}
		}
	}
}

// plan is the text of an explained plan.
type plan string

// explain runs a statement and takes it back.
func explain(t *testing.T, conn *pgx.Conn, guarded bool, query string, args []any) plan {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if guarded {
		if _, err := tx.Exec(t.Context(), postgres.Guard); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := tx.Query(t.Context(), "explain (analyze, buffers, costs off, timing off) "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return plan(strings.Join(lines, "\n"))
}

var (
	removed = regexp.MustCompile(`Rows Removed by (?:Join )?Filter: (\d+)`)
	touched = regexp.MustCompile(`(?m)^(?:\S.*\n)?  Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?`)
	sorted  = regexp.MustCompile(`Sort Method: .*(?:external|Disk)`)
)

// bad returns what no plan may have.
func (p plan) bad() (all []string) {
	if strings.Contains(string(p), "Seq Scan on request") {
		all = append(all, "it reads all requests")
	}
	if sorted.MatchString(string(p)) {
		all = append(all, "it sorts a backlog")
	}
	for _, m := range removed.FindAllStringSubmatch(string(p), -1) {
		if n, _ := strconv.Atoi(m[1]); n > 500 {
			all = append(all, "it drops "+m[1]+" rows of a loop")
		}
	}
	return all
}

// buffers returns how many pages the whole statement touched.
func (p plan) buffers() (n int) {
	m := touched.FindStringSubmatch(string(p))
	for _, s := range m[min(1, len(m)):] {
		k, _ := strconv.Atoi(s)
		n += k
	}
	return n
}
