package endtoend_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
)

var (
	soakRequests = flag.Int("fleet.requests", 0, "how many requests TestFleetSoak sends; 0: it is skipped")
	soakDuration = flag.Duration("fleet.duration", 5*time.Minute, "how long it takes to send them")
	fleetSeed    = flag.Uint64("fleet.seed", 0, "what chaos and requests follow from; 0: another one each time")
)

// TestFleet has four hosts on one PostgreSQL serve several tenants while
// everything happens to them that may: see actions.
func TestFleet(t *testing.T) { testFleet(t, 1500, 25*time.Second) }

// TestFleetSoak is TestFleet for longer.
func TestFleetSoak(t *testing.T) {
	if *soakRequests == 0 {
		t.Skip("set -fleet.requests")
	}
	testFleet(t, *soakRequests, *soakDuration)
}

// The tenants of the fleet: one without a cap, one with a cap of its lanes, one
// with a cap of all of them together, one with both.
var fleetMembers = []member{
	{"ant", "sk-ant", "m"},
	{"ant", "sk-ant", "late"},
	{"bee", "sk-bee", "m"},
	{"cat", "sk-cat", "m"},
	{"cat", "sk-cat", "late"},
	{"dog", "sk-dog", "late"},
}

// fleetLimit is how many calls each model of the upstream takes at once.
const fleetLimit = 12

func testFleet(t *testing.T, total int, over time.Duration) {
	seed := *fleetSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again with -fleet.seed=%d", seed)
		}
	})
	server := testdb.NewServer(t)
	rec, sky := &recorder{}, &weather{}
	r := newRig(t, server.URL(), rec.script(sky.over(answered)))
	r.lease, r.limit = fleetLease.String(), fleetLimit
	r.models = "  - name: late\n    targets: [{upstream: up, model: real-late}]\n    escalate: {to: m, within: 24h}\n"
	r.tenants = tenantYAML("ant", "sk-ant", "weight: 4") +
		tenantYAML("bee", "sk-bee", "max_running: 6") +
		tenantYAML("cat", "sk-cat", "max_running_total: 10, reserve: {realtime: 2, queued: 2}") +
		tenantYAML("dog", "sk-dog", "max_running: 6, max_running_total: 8, reserve: {realtime: 1, queued: 1}")
	c := newChaos(r, server, sky, seed, 0, 10*time.Minute, 0, -10*time.Minute)
	a := newAudit(t, server.URL())
	stop := a.watch()

	people := &crowd{
		r: r, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, members: fleetMembers,
		seed: seed, hosts: c.pick, open: a.open, turns: map[string]int{},
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		people.ask(total, over)
	}()
	c.run(asked)
	<-asked
	for left := math.MaxInt; left > 0; {
		// One that met several bursts of errors waits for minutes.
		r.within(5*time.Minute, fmt.Sprintf("fewer than %d requests are open", left), func() bool {
			n, err := a.open()
			if err != nil || n >= left {
				return false
			}
			left = n
			return true
		})
	}
	taken, most := stop()
	people.lookAgain()
	for _, p := range c.places {
		p.host.term()
	}

	a.checkRows()
	calls := rec.all()
	l := newLedger(a, calls, c.processes)
	l.disturbed = c.disturbed
	l.check()
	people.check(l, calls)
	c.checkClocks(l)
	for _, model := range []string{"real-m", "real-late"} {
		busiest := checkInFlight(t, callsOf(calls, model), fleetLimit, c.stopped)
		t.Logf("%s had up to %d calls at once of %d", model, busiest, fleetLimit)
	}
	t.Logf("chaos %v; %d calls; %d samples, most %v", c.counts, len(calls), taken, most)
	a.each("select class, code, count(*) from request where state = 11 group by class, code order by count(*) desc", func(scan func(...any)) {
		var class, code string
		var n int
		scan(&class, &code, &n)
		t.Logf("failed: %d %s %s", n, class, code)
	})
	l.told(taken)
}

// told logs what happened to the requests, and fails if it was too little to
// have tried anything.
func (l *ledger) told(samples int) {
	l.t.Helper()
	states, reaped, again, late := map[string]int{}, 0, 0, 0
	for _, f := range l.lives {
		states[f.state.String()]++
		if f.attempt > 1 {
			again++
		}
		for _, m := range f.moves {
			if m.was.Owned() && m.state == queue.Waiting && m.workerWas != 0 {
				reaped++
			}
		}
		if len(f.tenures) > 0 && l.outlived(f) {
			late++
		}
	}
	l.t.Logf("%d requests %v; %d ran more than once, %d put off or reaped, %d with a result that came too late", len(l.lives), states, again, reaped, late)
	if again == 0 || reaped == 0 || samples < 100 || states["completed"] < len(l.lives)/2 {
		l.t.Errorf("too little happened: %d samples", samples)
	}
}

// outlived reports whether a host was served for a request that was another's
// by then.
func (l *ledger) outlived(f *life) bool {
	for _, c := range f.calls {
		if t, ok := f.tenureOf(c); ok && c.whole && !t.to.IsZero() && c.ended.After(t.to) {
			return true
		}
	}
	return false
}

func callsOf(calls []call, model string) []call {
	var of []call
	for _, c := range calls {
		if c.model == model {
			of = append(of, c)
		}
	}
	return of
}
