package endtoend_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// life is what the database and the upstream know of one request.
type life struct {
	id       string
	path     string
	state    queue.State
	attempt  int
	realtime bool
	moves    []move
	steps    map[string]stepRow // of model calls, by idempotency key
	usage    map[string]int     // rows by idempotency key, or "" and the attempt
	calls    []call
	tenures  []tenure
}

// move is one change of state, attempt or worker.
type move struct {
	at              time.Time
	was, state      queue.State // was is born when the request came into being
	attempt         int
	attemptWas      int
	workerWas, work int64
}

const born queue.State = -1

type stepRow struct {
	state   string
	tries   int
	attempt int
}

// tenure is the time for which a host had a request to run.
type tenure struct {
	attempt  int
	site     string
	from, to time.Time // to is zero: it never lost it
}

// ledger holds every request against what was recorded of it.
type ledger struct {
	t     *testing.T
	lives map[string]*life
	sites map[int64]string // of workers
	// disturbed reports whether a host could not act as it should some time
	// between from and to: it was stopped, killed or cut off.
	disturbed func(site string, from, to time.Time) bool
	wrong     int
}

// errorf reports at most so many errors that the first ones can be read.
func (l *ledger) errorf(id, format string, args ...any) {
	l.t.Helper()
	const most = 30
	if l.wrong++; l.wrong > most {
		if l.wrong == most+1 {
			l.t.Error("and more")
		}
		return
	}
	f := l.lives[id]
	l.t.Errorf("request %s: %s\n\tmoves %+v\n\tcalls %+v\n\tsteps %+v usage %v",
		id, fmt.Sprintf(format, args...), f.moves, f.calls, f.steps, f.usage)
}

// newLedger reads the database; processes name the site of each process.
func newLedger(a *audit, calls []call, processes map[string]string) *ledger {
	a.t.Helper()
	l := &ledger{t: a.t, lives: map[string]*life{}, sites: map[int64]string{}}
	const hex = "replace(%s::text, '-', '')"
	a.each("select id, host from audit.worker", func(scan func(...any)) {
		var id int64
		var host string
		scan(&id, &host)
		_, pid, _ := strings.Cut(host, "/")
		l.sites[id] = processes[pid]
	})
	a.each(fmt.Sprintf("select %s, path, state, attempt, realtime from request", fmt.Sprintf(hex, "id")), func(scan func(...any)) {
		f := &life{steps: map[string]stepRow{}, usage: map[string]int{}}
		scan(&f.id, &f.path, &f.state, &f.attempt, &f.realtime)
		l.lives[f.id] = f
	})
	a.each(fmt.Sprintf(`select %s, at, coalesce(was, -1), state, coalesce(attempt_was, 0), attempt, coalesce(worker_was, 0), coalesce(worker, 0)
		from audit.move order by n`, fmt.Sprintf(hex, "request")), func(scan func(...any)) {
		var m move
		var id string
		scan(&id, &m.at, &m.was, &m.state, &m.attemptWas, &m.attempt, &m.workerWas, &m.work)
		l.lives[id].moves = append(l.lives[id].moves, m)
	})
	a.each(fmt.Sprintf(`select %s, scope, ordinal, state, tries, attempt from step where kind = 'model_call'`,
		fmt.Sprintf(hex, "request")), func(scan func(...any)) {
		var s stepRow
		var id, scope string
		var ordinal int
		scan(&id, &scope, &ordinal, &s.state, &s.tries, &s.attempt)
		l.lives[id].steps[fmt.Sprintf("%s/%s/%d", id, scope, ordinal)] = s
	})
	a.each(fmt.Sprintf("select %s, scope, ordinal from usage", fmt.Sprintf(hex, "request")), func(scan func(...any)) {
		var id, scope string
		var ordinal int
		scan(&id, &scope, &ordinal)
		f := l.lives[id]
		key := fmt.Sprintf("%s/%s/%d", id, scope, ordinal)
		if !f.looped() {
			key = id // its calls all have the one key
		}
		f.usage[key]++
	})
	for _, c := range calls {
		f := l.lives[c.request()]
		if f == nil {
			a.t.Errorf("call %d has the key %q of no request", c.n, c.key)
			continue
		}
		f.calls = append(f.calls, c)
	}
	for _, f := range l.lives {
		f.tenures = l.tenuresOf(f)
	}
	return l
}

// looped reports whether the request is one of steps.
func (f *life) looped() bool { return strings.HasSuffix(f.path, "/responses") }

// tenuresOf reads from the moves which hosts ran the request.
func (l *ledger) tenuresOf(f *life) (all []tenure) {
	for _, m := range f.moves {
		if m.was == queue.Processing && m.state != queue.Processing {
			all[len(all)-1].to = m.at
		}
		if m.state == queue.Processing && m.was != queue.Processing {
			all = append(all, tenure{attempt: m.attempt, site: l.sites[m.work], from: m.at})
		}
	}
	return all
}

// tenureOf returns the tenure in which a call was made: the last of its host
// that had begun by then.
func (f *life) tenureOf(c call) (tenure, bool) {
	for _, t := range slices.Backward(f.tenures) {
		if t.site == c.site && !t.from.After(c.began) {
			return t, true
		}
	}
	return tenure{}, false
}

// check checks every request.
func (l *ledger) check() {
	l.t.Helper()
	for _, f := range l.lives {
		l.checkMoves(f)
		l.checkCalls(f)
		l.checkServed(f)
		l.checkUsage(f)
	}
}

// checkMoves holds the moves against the table of states.
func (l *ledger) checkMoves(f *life) {
	state, attempt := born, 0
	for i, m := range f.moves {
		legal := m.was == state && m.attemptWas == attempt
		switch {
		case i == 0:
			legal = m.was == born && (m.state == queue.Pending && m.attempt == 0 && m.work == 0 ||
				m.state == queue.Processing && m.attempt == 1 && m.work != 0)
		case m.was == m.state: // a canceled one was let go of
			legal = legal && m.state == queue.Canceled && m.attempt == attempt && m.workerWas != 0 && m.work == 0
		case m.was == queue.Pending && (m.state == queue.Claimed || m.state == queue.Processing): // claimed, or claimed and begun at once
			legal = legal && m.attempt == attempt+1 && m.work != 0
		default:
			legal = legal && m.attempt == attempt && moves(m.was, m.state)
		}
		if !legal {
			l.errorf(f.id, "move %d is not legal: %+v", i, m)
		}
		state, attempt = m.state, m.attempt
	}
	if state != f.state || attempt != f.attempt || !state.Final() {
		l.errorf(f.id, "is %s at attempt %d; its moves end at %s, %d", f.state, f.attempt, state, attempt)
	}
}

// moves reports whether anybody may move a request so.
func moves(from, to queue.State) bool {
	for _, by := range []queue.Cause{
		queue.ByClaim, queue.ByStart, queue.ByOutcome, queue.ByRetry, queue.ByPromote,
		queue.ByReap, queue.ByHandBack, queue.ByCancel, queue.ByDeadline,
	} {
		if queue.Move(from, to, by) == nil {
			return true
		}
	}
	return false
}

// overstay is how long after it lost a request a healthy host may still call
// the upstream for it: until the next heartbeat tells it, and a little.
const overstay = 2 * time.Second

// checkCalls accounts for each call: it was made by a host that had the request
// by then, not long after it lost it, and within one attempt a step is called
// again only after the upstream refused it.
func (l *ledger) checkCalls(f *life) {
	type try struct {
		key     string
		attempt int
	}
	answered, tried := map[try]int{}, map[string]int{}
	for _, c := range f.calls {
		tried[c.key]++
		t, ok := f.tenureOf(c)
		switch late := t.to.Add(overstay); {
		case !ok:
			l.errorf(f.id, "call %d by %q before it was that host's to run", c.n, c.site)
			continue
		case !t.to.IsZero() && c.began.After(late) && !l.disturbed(c.site, t.to, c.began):
			l.errorf(f.id, "call %d by %q %s after it lost the request", c.n, c.site, c.began.Sub(t.to))
		}
		if !c.refused() {
			answered[try{c.key, t.attempt}]++
		}
	}
	for t, n := range answered {
		if n > 1 {
			l.errorf(f.id, "%d calls of %s in attempt %d that the upstream did not refuse; want one", n, t.key, t.attempt)
		}
	}
	for key, n := range tried {
		switch s, ok := f.steps[key]; {
		case !f.looped() && key != f.id:
			l.errorf(f.id, "called with key %s", key)
		case f.looped() && !ok && len(f.steps) > 0:
			l.errorf(f.id, "called for %s, which is no step of it", key)
		case ok && n > s.tries:
			l.errorf(f.id, "%d calls of %s, which was tried %d times", n, key, s.tries)
		}
	}
}

// checkServed wants, for each answer that was taken over, a call that served it
// whole, by the host whose attempt took it over.
func (l *ledger) checkServed(f *life) {
	served := func(key string, attempt int) bool {
		return slices.ContainsFunc(f.calls, func(c call) bool {
			t, ok := f.tenureOf(c)
			return ok && c.key == key && c.whole && !c.refused() && t.attempt == attempt
		})
	}
	for key, s := range f.steps {
		if s.state == "completed" && !served(key, s.attempt) {
			l.errorf(f.id, "step %s was completed by attempt %d, which no call served", key, s.attempt)
		}
	}
	if !f.looped() && f.state == queue.Completed && !served(f.id, f.attempt) {
		l.errorf(f.id, "completed by attempt %d, which no call served", f.attempt)
	}
}

// checkUsage wants what a call used to be kept, whatever became of its request,
// if its host lived to tell.
func (l *ledger) checkUsage(f *life) {
	const tell = 2 * time.Second
	least, most := map[string]int{}, map[string]int{}
	for _, c := range f.calls {
		most[c.key]++
		if c.whole && !c.refused() && f.state != queue.Canceled && !l.disturbed(c.site, c.began, c.ended.Add(tell)) {
			least[c.key]++
		}
	}
	for key, n := range least {
		if f.usage[key] < n {
			l.errorf(f.id, "%d rows of usage of %s; want at least %d", f.usage[key], key, n)
		}
	}
	for key, n := range f.usage {
		if n > most[key] {
			l.errorf(f.id, "%d rows of usage of %s; want at most %d", n, key, most[key])
		}
	}
}

// each calls f with each row of a query.
func (a *audit) each(query string, f func(scan func(...any))) {
	a.t.Helper()
	rows, err := a.db.Query(query)
	if err != nil {
		a.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		f(func(into ...any) {
			if err := rows.Scan(into...); err != nil {
				a.t.Fatalf("%s: %v", query, err)
			}
		})
	}
	if err := rows.Err(); err != nil {
		a.t.Fatal(err)
	}
}
