package endtoend_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
)

const races = 500

// quick is a script whose answers name their call and come soon.
func quick(n int, _ demo.Request) demo.Turn {
	return demo.Turn{Text: fmt.Sprintf("answer-%d-", n), ChunkRunes: 64, Delay: rand.N(20 * time.Millisecond)}
}

// eachRace runs f for each race, some at once, each with a time after which to
// do what races against the end of a request. f reports whether it came first:
// then the next ones have longer, so that on every machine and under every load
// about half of them do.
func eachRace(f func(i int, after time.Duration) (first bool)) {
	const clients, step = 10, 1.1
	var mu sync.Mutex
	pace := float64(20 * time.Millisecond)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := c; i < races; i += clients {
				mu.Lock()
				after := time.Duration(pace * (0.5 + rand.Float64()))
				mu.Unlock()
				first := f(i, after)
				mu.Lock()
				if pace /= step; first {
					pace *= step * step
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// hosts starts the hosts that a database takes: one on SQLite, else two.
func (r *rig) hosts() []*host {
	hosts := []*host{r.start()}
	if !strings.HasPrefix(r.storeURL, "sqlite:") {
		hosts = append(hosts, r.start())
	}
	return hosts
}

// TestCancelRacesCompletion cancels responses about when they are completed,
// through the other host where there is one: whoever was first, everybody is
// told the same.
func TestCancelRacesCompletion(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		rec := &recorder{}
		r := newRig(t, url, rec.script(quick))
		hosts := r.hosts()
		ids, told := make([]string, races), make([]string, races)
		eachRace(func(i int, after time.Duration) bool {
			ids[i] = hosts[i%len(hosts)].background("hello")
			wait(after)
			other := hosts[(i+1)%len(hosts)]
			status, v := other.post("/v1/responses/"+ids[i]+"/cancel", nil)
			told[i], _ = v["status"].(string)
			if status != http.StatusOK {
				t.Errorf("cancel: %d %v", status, v)
			}
			if _, w := hosts[i%len(hosts)].get("/v1/responses/" + ids[i]); w["status"] != told[i] {
				t.Errorf("the cancel said %q, then it is %v", told[i], w["status"])
			}
			return told[i] == "cancelled"
		})
		outcomes := map[queue.State]int{}
		for i, id := range ids {
			found := r.record(id)
			outcomes[found.State]++
			want := map[string]queue.State{"cancelled": queue.Canceled, "completed": queue.Completed}[told[i]]
			if found.State != want {
				t.Errorf("%s: the client was told %q, it is %s", id, told[i], found.State)
			}
			if (found.Result != nil) != (found.State == queue.Completed) {
				t.Errorf("%s: %s, has a result: %v", id, found.State, found.Result != nil)
			}
			if n := len(rec.of(id)); n > 1 {
				t.Errorf("%s: %d upstream calls; want at most one", id, n)
			}
			if found.State == queue.Completed { // a canceled one ends where it was
				checkEvents(t, found)
			}
		}
		r.atRest()
		t.Logf("%v", outcomes)
		if outcomes[queue.Canceled] < races/20 || outcomes[queue.Completed] < races/20 {
			t.Errorf("%v of %d: one side nearly always won, so nothing was tried", outcomes, races)
		}
	})
}

// atRest waits until no worker holds anything, and checks that everything has
// ended.
func (r *rig) atRest() {
	r.Helper()
	r.eventually("nothing is held", func() bool {
		stats, err := r.db().Stats(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		open := 0
		for s, n := range stats.States {
			if !s.Final() {
				open += n
			}
		}
		for _, l := range stats.Lanes {
			open += l.Owned
		}
		return open == 0
	})
}

// TestDisconnectRacesCompletion has clients leave about when their answer
// comes. A client that has a whole answer has that of a completed request; one
// that left has a completed or a canceled one.
func TestDisconnectRacesCompletion(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		rec := &recorder{}
		r := newRig(t, url, rec.script(quick))
		hosts := r.hosts()
		forms := slices.DeleteFunc(slices.Clone(shapes), shape.background)
		answers := make([]int, races) // the call that each client was answered with; -1: none
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}
		people := &crowd{r: r, client: client}
		eachRace(func(i int, after time.Duration) bool {
			form := forms[i%len(forms)]
			form.tool = false
			ctx, leave := context.WithTimeout(t.Context(), after)
			defer leave()
			a := asked{shape: form, told: born, answer: -1}
			status, body, err := people.send(ctx, hosts[i%len(hosts)].url+form.path, apiKey, form.body("m", i))
			if err == nil && status != http.StatusOK {
				t.Errorf("%s: %d %s", form.name, status, body)
			}
			people.read(&a, status, body)
			answers[i] = a.answer
			if (a.answer >= 0) != (a.told == queue.Completed) {
				t.Errorf("%s: told %s with the answer of call %d: %s", form.name, a.told, a.answer, body)
			}
			return a.answer < 0
		})
		r.atRest()
		calls, states := rec.all(), map[string]queue.State{}
		for _, c := range calls {
			found := r.record(c.request())
			states[c.request()] = found.State
			if found.State != queue.Completed && found.State != queue.Canceled {
				t.Errorf("%s: is %s", found.ID, found.State)
			}
		}
		answered := 0
		for _, n := range answers {
			if n < 0 {
				continue
			}
			answered++
			if s := states[calls[n].request()]; s != queue.Completed {
				t.Errorf("a client has the answer of call %d, its request is %s", n, s)
			}
		}
		left := 0
		for _, s := range states {
			if s == queue.Canceled {
				left++
			}
		}
		t.Logf("%d answered, %d canceled", answered, left)
		if len(calls) != len(states) {
			t.Errorf("%d upstream calls for %d requests; want one each", len(calls), len(states))
		}
		if answered < races/20 || left < races/20 {
			t.Errorf("%d answered, %d canceled: one side nearly always won, so nothing was tried", answered, left)
		}
	})
}

// TestCancelReachesItsHost measures from a cancel to the upstream's seeing the
// call broken off: at once on the host that runs it, within 100 ms on another
// one by notification, within a heartbeat by polling alone.
func TestCancelReachesItsHost(t *testing.T) {
	const (
		trials = 20
		slow   = 2 // of them may be late: the machine has other things to do
	)
	tests := []struct {
		name   string
		url    func(testing.TB) string
		lease  time.Duration
		quiet  bool
		same   bool // through the host that runs it
		within time.Duration
	}{
		{"SQLite", func(t testing.TB) string { return "sqlite:" + testdb.SQLite(t) }, 20 * time.Second, false, true, 100 * time.Millisecond},
		{"PostgreSQL, same host", testdb.Postgres, 20 * time.Second, false, true, 100 * time.Millisecond},
		{"PostgreSQL, notified", testdb.Postgres, 20 * time.Second, false, false, 100 * time.Millisecond},
		{"PostgreSQL, polling", testdb.Postgres, 2 * time.Second, true, false, 2*time.Second/4 + 100*time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec, began := &recorder{}, make(chan string, 1)
			r := newRig(t, tt.url(t), rec.script(func(_ int, req demo.Request) demo.Turn {
				began <- strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer site")
				return demo.Turn{Gate: make(chan struct{})}
			}))
			r.lease = tt.lease.String()
			hosts := map[string]*host{}
			for name := range 2 {
				if name > 0 && strings.HasPrefix(r.storeURL, "sqlite:") {
					break
				}
				at := site{name: strconv.Itoa(name), quiet: tt.quiet}
				hosts[at.name] = r.startAt(at)
			}
			var took []time.Duration
			for range trials {
				id := hosts["0"].background("hello")
				runs := <-began
				through := hosts[runs]
				for name, h := range hosts {
					if !tt.same && name != runs {
						through = h
					}
				}
				sent := time.Now()
				if status, v := through.post("/v1/responses/"+id+"/cancel", nil); status != 200 || v["status"] != "cancelled" {
					t.Fatalf("cancel: %d %v", status, v)
				}
				r.eventually("the upstream sees the call broken off", func() bool {
					c := rec.of(id)[0]
					if c.ended.IsZero() {
						return false
					}
					took = append(took, c.ended.Sub(sent))
					return true
				})
			}
			slices.Sort(took)
			t.Logf("median %s, most %s", took[trials/2], took[trials-1])
			if got := took[trials-1-slow]; got > tt.within {
				t.Errorf("all but %d of %d took up to %s; want at most %s", slow, trials, got, tt.within)
			}
			r.atRest()
		})
	}
}
