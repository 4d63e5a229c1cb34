package postgres_test

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
		"fair":      {"m", 50, pulse.Worker, 10, 0.0, nil, 1_000_000, other, within, true},
		"fairOwn":   {"m", 50, pulse.Worker, 10, 0.0, nil, 1_000_000, nil, nil, true},
		"urgent":    {"m", 10, pulse.Worker, 10, 0.0, within, 5, other, within, true},
		"urgentOwn": {"m", 10, pulse.Worker, 10, 0.0, within, 5, nil, nil, true},
		"near":      {"m", 10, pulse.Worker, 10, 0.0, within, 5, other, within, true},
		"others":    {[]string{"m"}, []string{other}, []int64{within}, 10},
		"probe":     {pulse.Worker, []string{"m"}, []float64{0}, []*int64{nil}, within},
	}
	grow(t, conn, claims, []bool{true, false}, func(from, to int) string { return fmt.Sprintf(fill, from, to) })
}

// grow explains statements when there are 10,000 requests and when there are
// 100,000: they touch about as many pages.
func grow(t *testing.T, conn *pgx.Conn, statements map[string][]any, guards []bool, fill func(from, to int) string) {
	t.Helper()
	small := make(map[string]int)
	from := 1
	for _, n := range []int{10_000, 100_000} {
		if _, err := conn.PgConn().Exec(t.Context(), fill(from, n)).ReadAll(); err != nil {
			t.Fatal(err)
		}
		for name, args := range statements {
			for _, guarded := range guards {
				p := explain(t, conn, guarded, postgres.Statements[name], args)
				for _, bad := range p.bad() {
					t.Errorf("%s of %d, guarded %t: %s\n%s", name, n, guarded, bad, p)
				}
				if from == 1 {
					small[name] = max(small[name], p.buffers())
				} else if got := p.buffers(); got == 0 || got > 2*small[name]+50 {
					t.Errorf("%s, guarded %t: %d buffers of %d requests, %d of a tenth\n%s", name, guarded, got, n, small[name], p)
				}
			}
		}
		from = n + 1
	}
}

// plan is the text of an explained plan.
type plan string

// explain runs a statement and takes it back: guarded, by the plan for any
// parameters, else by one for these.
func explain(t *testing.T, conn *pgx.Conn, guarded bool, query string, args []any) plan {
	t.Helper()
	run := func(sql string) []*pgconn.Result {
		t.Helper()
		results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return results
	}
	run("begin")
	if guarded {
		run(postgres.Guard)
	}
	run("prepare explained as " + query)
	values := make([]string, len(args))
	for i, a := range args {
		values[i] = literal(a)
	}
	arguments := ""
	if len(values) > 0 {
		arguments = "(" + strings.Join(values, ", ") + ")"
	}
	var lines []string
	for _, row := range run("explain (analyze, buffers, costs off, timing off) execute explained" + arguments)[0].Rows {
		lines = append(lines, string(row[0]))
	}
	run("rollback")
	run("deallocate explained")
	return plan(strings.Join(lines, "\n"))
}

// literal writes an argument in SQL.
func literal(a any) string {
	switch v := reflect.ValueOf(a); {
	case a == nil, v.Kind() == reflect.Pointer && v.IsNil():
		return "null"
	case v.Kind() == reflect.Pointer:
		return literal(v.Elem().Interface())
	case v.Kind() == reflect.Slice:
		all := make([]string, v.Len())
		for i := range all {
			all[i] = strings.Trim(literal(v.Index(i).Interface()), "'")
		}
		return "'{" + strings.Join(all, ",") + "}'"
	}
	return fmt.Sprintf("'%v'", a)
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
