package endtoend_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/fleet"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
)

// place is where one host of a fleet runs, again and again.
type place struct {
	name  string
	skew  time.Duration
	proxy *fleet.Proxy
	url   string // of the database, through the proxy
	runs  int
	host  *host
	up    atomic.Pointer[string] // the host's URL; nil: it was killed, stopped or cut off
}

// site is the name of the host that runs there now, which no other has.
func (p *place) site() string { return fmt.Sprintf("-%s-%d", p.name, p.runs) }

// spell is a time in which something was done to a host.
type spell struct {
	site     string // "": to all
	from, to time.Time
	stopped  bool
}

// chaos does to a fleet what may happen to it.
type chaos struct {
	r         *rig
	server    *testdb.Server
	rng       *rand.Rand
	places    []*place
	processes map[string]string // sites by process id
	counts    map[string]int

	weather *weather

	mu     sync.Mutex
	spells []spell
}

// weather is what the upstream's answers are like.
type weather struct{ burst atomic.Pointer[burst] }

// burst is a time in which most answers are an error.
type burst struct {
	until  time.Time
	status int
}

// The lease of the fleet's hosts, and how long something lasts that is longer
// than a lease and the time that others give its holder after it.
const (
	fleetLease = 2 * time.Second
	pastLease  = 2 * fleetLease
)

// newChaos starts a host for each clock of skews, each with its own way to the
// database.
func newChaos(r *rig, server *testdb.Server, w *weather, seed uint64, skews ...time.Duration) *chaos {
	r.Helper()
	c := &chaos{
		r: r, server: server, weather: w, rng: rand.New(rand.NewPCG(seed, 1)),
		processes: map[string]string{}, counts: map[string]int{},
	}
	for i, skew := range skews {
		proxy, err := fleet.NewProxy(server.URL())
		if err != nil {
			r.Fatal(err)
		}
		r.Cleanup(proxy.Close)
		p := &place{name: string(rune('a' + i)), skew: skew, proxy: proxy}
		if p.url, err = proxy.URL(server.URL()); err != nil {
			r.Fatal(err)
		}
		c.places = append(c.places, p)
		c.start(p)
	}
	return c
}

// start starts the next host of a place.
func (c *chaos) start(p *place) {
	c.r.Helper()
	p.runs++
	p.host = c.r.startAt(site{name: p.site(), store: p.url, skew: p.skew, slots: 12})
	c.processes[strconv.Itoa(p.host.cmd.Process.Pid)] = p.site()
	p.up.Store(&p.host.url)
}

// pick returns the URL of a host that can answer, if there is one.
func (c *chaos) pick(n int) string {
	for i := range c.places {
		if u := c.places[(n+i)%len(c.places)].up.Load(); u != nil {
			return *u
		}
	}
	return "http://127.0.0.1:1" // as good as a host that is gone
}

// over lets bursts of errors in between the answers of script, which take their
// time.
func (w *weather) over(script demo.Script) demo.Script {
	return func(n int, req demo.Request) demo.Turn {
		rng := rand.New(rand.NewPCG(uint64(n), 2))
		b := w.burst.Load()
		if b != nil && time.Now().Before(b.until) && rng.IntN(4) > 0 {
			turn := demo.Turn{Status: b.status, ErrorBody: `{"error":{"message":"try again"}}`}
			if b.status == http.StatusTooManyRequests {
				turn.RetryAfter = "1"
			}
			return turn
		}
		turn := script(n, req)
		turn.Delay = time.Duration(10+rng.IntN(190)) * time.Millisecond
		return turn
	}
}

// actions are what may happen, by name.
var actions = []struct {
	name string
	do   func(*chaos)
}{
	{"kill a host", (*chaos).kill},
	{"end a host in order", (*chaos).term},
	{"stop a host past its lease", (*chaos).stop},
	{"cut a host off past its lease", (*chaos).hold},
	{"cut every connection", (*chaos).cut},
	{"stop the database past a lease", func(c *chaos) { c.away((*testdb.Server).Stop) }},
	{"crash the database past a lease", func(c *chaos) { c.away((*testdb.Server).Kill) }},
	{"burst of 429", func(c *chaos) { c.refuse(http.StatusTooManyRequests) }},
	{"burst of 500", func(c *chaos) { c.refuse(http.StatusInternalServerError) }},
}

// run does everything once, in some order, and goes on until done is closed.
func (c *chaos) run(done <-chan struct{}) {
	c.r.Helper()
	for {
		for _, i := range c.rng.Perm(len(actions)) {
			c.r.Logf("%s %s", time.Now().Format("15:04:05.000"), actions[i].name)
			actions[i].do(c)
			c.counts[actions[i].name]++
			wait(time.Duration(300+c.rng.IntN(900)) * time.Millisecond)
			if c.r.Failed() {
				return
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// wait lets time pass in which other processes do something.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func (c *chaos) somewhere() *place { return c.places[c.rng.IntN(len(c.places))] }

// note notes that something was done to a site, until now and a while after.
func (c *chaos) note(site string, from time.Time, after time.Duration, stopped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spells = append(c.spells, spell{site: site, from: from, to: time.Now().Add(after), stopped: stopped})
}

func (c *chaos) kill() {
	p := c.somewhere()
	p.up.Store(nil)
	from, site := time.Now(), p.site()
	p.host.kill()
	c.note(site, from, 24*time.Hour, false)
	wait(time.Duration(c.rng.IntN(int(pastLease))))
	c.start(p)
}

func (c *chaos) term() {
	p := c.somewhere()
	p.up.Store(nil)
	p.host.term()
	c.start(p)
}

func (c *chaos) stop() {
	p := c.somewhere()
	p.up.Store(nil)
	from := time.Now()
	p.host.signal(syscall.SIGSTOP)
	wait(pastLease)
	p.host.signal(syscall.SIGCONT)
	c.note(p.site(), from, time.Second, true)
	p.up.Store(&p.host.url)
}

func (c *chaos) hold() {
	p := c.somewhere()
	p.up.Store(nil)
	from := time.Now()
	p.proxy.Hold()
	wait(pastLease)
	p.proxy.Release()
	c.note(p.site(), from, fleetLease, false)
	p.up.Store(&p.host.url)
}

func (c *chaos) cut() {
	for _, p := range c.places {
		p.proxy.Cut()
	}
}

func (c *chaos) away(end func(*testdb.Server)) {
	from := time.Now()
	end(c.server)
	wait(fleetLease + time.Duration(c.rng.IntN(int(fleetLease))))
	c.server.Start()
	c.note("", from, fleetLease, false)
}

func (c *chaos) refuse(status int) {
	c.weather.burst.Store(&burst{until: time.Now().Add(1500 * time.Millisecond), status: status})
}

// disturbed reports whether something was done to a site between two times.
func (c *chaos) disturbed(site string, from, to time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spells {
		if (s.site == "" || s.site == site) && s.from.Before(to) && from.Before(s.to) {
			return true
		}
	}
	return false
}

// stopped reports whether the process of a site was stopped, or just went on.
func (c *chaos) stopped(site string, at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spells {
		if s.stopped && s.site == site && s.from.Before(at) && at.Before(s.to) {
			return true
		}
	}
	return false
}

// checkClocks checks that the clocks of the hosts were as wrong as they were to
// be, by the ids that they gave to requests which they ran themselves.
func (c *chaos) checkClocks(l *ledger) {
	c.r.Helper()
	const tolerance = time.Minute
	seen := map[string]int{}
	for _, f := range l.lives {
		if !f.realtime {
			continue
		}
		id, err := queue.ParseID(f.id)
		if err != nil {
			c.r.Fatal(err)
		}
		site, off := l.sites[f.moves[0].work], id.Time().Sub(f.moves[0].at)
		for _, p := range c.places {
			if !strings.HasPrefix(site, "-"+p.name+"-") {
				continue
			}
			seen[p.name]++
			if d := off - p.skew; d < -tolerance || d > tolerance {
				l.errorf(f.id, "host %s was %s off; want %s", site, off, p.skew)
			}
		}
	}
	if len(seen) != len(c.places) {
		c.r.Errorf("requests by clock: %v; want some of each of %d hosts", seen, len(c.places))
	}
}
