package endtoend_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
)

// call is one call that the upstream got.
type call struct {
	n            int    // in order of arrival
	key          string // its idempotency key: a request, or a step of one
	site         string // of the host that made it
	model        string // as the upstream knows it
	status       int
	began, ended time.Time // not ended yet: zero
	whole        bool      // the host was sent all of the answer
}

// request is the id of the request that the call was made for.
func (c call) request() string {
	id, _, _ := strings.Cut(c.key, "/")
	return id
}

// refused reports whether the upstream answered with an error, after which the
// host may call again.
func (c call) refused() bool { return c.status >= http.StatusBadRequest }

// recorder keeps every call that an upstream gets.
type recorder struct {
	mu    sync.Mutex
	calls []*call
}

// script is answer, with every call recorded.
func (r *recorder) script(answer demo.Script) demo.Script {
	return func(n int, req demo.Request) demo.Turn {
		c := &call{
			n: n, key: req.Header.Get("Idempotency-Key"), began: time.Now(),
			site: strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer site"), model: modelOf(req.Body),
		}
		turn := answer(n, req)
		if c.status = turn.Status; c.status == 0 {
			c.status = http.StatusOK
		}
		turn.Ended = func(whole bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			c.ended, c.whole = time.Now(), whole
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls = append(r.calls, c)
		return turn
	}
}

func modelOf(body []byte) string {
	var q struct{ Model string }
	_ = json.Unmarshal(body, &q) // no model is what it asks for then
	return q.Model
}

// all returns the calls so far, in order of arrival.
func (r *recorder) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]call, len(r.calls))
	for i, c := range r.calls {
		all[i] = *c
	}
	return all
}

// of returns the calls for one request.
func (r *recorder) of(request string) []call {
	request = strings.TrimPrefix(request, "resp_")
	var of []call
	for _, c := range r.all() {
		if c.request() == request {
			of = append(of, c)
		}
	}
	return of
}

// checkInFlight checks that the upstream never had more calls at once than most.
// A call whose host broke it off counts until the host did so, which the
// upstream sees a little later; one of a host that was stopped, and so cannot
// break off what its lease no longer covers, does not count.
func checkInFlight(t *testing.T, calls []call, most int, stopped func(site string, at time.Time) bool) (busiest int) {
	t.Helper()
	const notice = 500 * time.Millisecond
	live := map[int]call{} // by n
	for _, c := range calls {
		for n, o := range live {
			if !o.ended.IsZero() && !o.ended.After(c.began) {
				delete(live, n)
			}
		}
		live[c.n] = c
		n := 0
		for _, o := range live {
			late := !o.whole && !o.ended.IsZero() && o.ended.Sub(c.began) < notice
			if !late && !stopped(o.site, c.began) {
				n++
			}
		}
		if busiest = max(busiest, n); n > most {
			t.Errorf("call %d: the upstream has %d calls at once; want at most %d", c.n, n, most)
		}
	}
	return busiest
}
