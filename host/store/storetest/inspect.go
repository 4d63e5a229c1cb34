package storetest

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var inspectCases = []testCase{
	{"InspectWorkers", testInspectWorkers},
	{"InspectRequests", testInspectRequests},
	{"InspectTables", testInspectTables},
}

func (h *harness) inspect() store.Report {
	h.Helper()
	r, err := h.d.Inspect(h.Context())
	if err != nil {
		h.Fatalf("Inspect: %v", err)
	}
	return r
}

func testInspectWorkers(h *harness) {
	begin := h.get(h.enqueue(of("clock", "clock"))).Created
	a := h.beat(store.Beat{Host: "host-a", Version: "1.2", Lease: forever}).Worker
	b := h.beat(store.Beat{Host: "host-b", Version: "1.3", Lease: time.Minute}).Worker
	h.beat(store.Beat{Worker: b, Host: "host-b", Version: "1.3", Lease: time.Minute, Draining: true, Targets: []store.TargetUse{{Target: upstream, Limit: 9, Want: 4, Cooldown: time.Hour}}})
	dead := h.worker()
	c := h.running(a)
	h.running(a)
	h.cancel(c.ID)
	h.kill(dead)
	r := h.inspect()
	if len(r.Workers) != 3 || !slices.IsSortedFunc(r.Workers, func(x, y store.WorkerStat) int { return int(x.ID - y.ID) }) {
		h.Fatalf("got workers %+v, want three by id", r.Workers)
	}
	for _, w := range r.Workers {
		want := store.WorkerStat{ID: w.ID, Started: w.Started, Left: w.Left}
		least, most := -patience-time.Second, -time.Second
		switch w.ID {
		case a:
			want.Host, want.Version, want.Owned = "host-a", "1.2", 2
			least, most = forever-patience, forever
		case b:
			want.Host, want.Version, want.Draining = "host-b", "1.3", true
			least, most = time.Minute-patience, time.Minute
		case dead:
			want.Host, want.Version = "h", "v"
		}
		if w != want || w.Left < least || w.Left > most {
			h.Errorf("got %+v, want %+v and %s to %s left", w, want, least, most)
		}
		if off := w.Started.Sub(begin); off < -time.Second || off > patience {
			h.Errorf("worker %d: got a start %s after the test's, by the database's clock", w.ID, off)
		}
	}
	if len(r.Targets) != 1 || r.Targets[0].Target != upstream || r.Targets[0].Limit != 9 || r.Targets[0].Shared != 4 || r.Targets[0].Cooldown < 50*time.Minute {
		h.Errorf("targets: got %+v", r.Targets)
	}
	if r.Orphans != 0 {
		h.Errorf("got %d orphans, want none", r.Orphans)
	}
}

func testInspectRequests(h *harness) {
	if r := h.inspect(); r.Oldest != 0 || r.Overdue != 0 || r.Orphans != 0 {
		h.Errorf("an empty database: got %+v", r)
	}
	h.gated(5)
	h.capped(3)
	w := h.worker()
	first := h.enqueue(of("a", "model-z"))
	h.enqueueMany(3)
	h.claim(w)
	h.enqueue(of(tenant, other))
	late := move(h.start(h.wantClaims("another lane", w, 1, 1, other)[0]).Fence(), queue.Waiting, queue.ByRetry)
	late.Move.Delay = forever
	h.must(late)
	created := h.get(first).Created
	for h.get(h.enqueue(of("clock", "clock"))).Created.Sub(created) < 20*time.Millisecond {
	}
	r := h.inspect()
	if r.Oldest < 15*time.Millisecond || r.Oldest > patience {
		h.Errorf("oldest: got %s", r.Oldest)
	}
	if r.Overdue != 0 || r.Orphans != 0 {
		h.Errorf("got %d overdue and %d orphans, want none", r.Overdue, r.Orphans)
	}
	if s := h.stats(); !reflect.DeepEqual(s.States, r.States) || len(s.Lanes) != len(r.Lanes) || !reflect.DeepEqual(s.Gates, r.Gates) {
		h.Errorf("counts: got %+v, want those of Stats, %+v", r.Stats, s)
	}
	if err := allExact(r.Stats); err != nil {
		h.Error(err)
	}
	if g := h.gate(); g.Cap != 5 || g.Owned != 1 || g.Running != 1 {
		h.Errorf("gate: got %+v", g)
	}
}

func testInspectTables(h *harness) {
	h.enqueue()
	r := h.inspect()
	if r.Database == "" || r.Schema < 3 {
		h.Errorf("got database %q, schema %d", r.Database, r.Schema)
	}
	if !slices.ContainsFunc(r.Tables, func(t store.TableStat) bool { return t.Name == "request" }) {
		h.Errorf("tables: got %+v, want request among them", r.Tables)
	}
	fair := false
	for _, i := range r.Indexes {
		fair = fair || strings.Contains(i.Name, "lane_fair") && i.Table == "lane"
		if !i.Valid {
			h.Errorf("index %s is not valid", i.Name)
		}
	}
	if !fair {
		h.Errorf("indexes: got %+v, want lane_fair among them", r.Indexes)
	}
}
