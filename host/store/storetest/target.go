package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/casemate/casemate/host/store"
)

var targetCases = []testCase{
	{"TargetOneHostGetsAll", testTargetAlone},
	{"TargetIsSharedOut", testTargetShared},
	{"TargetOfADeadWorker", testTargetDead},
	{"TargetOfASilentWorker", testTargetSilent},
	{"TargetKeepsWhatIsInUse", testTargetKeep},
	{"TargetLimitIsLowered", testTargetLowered},
	{"TargetCooldownSpreads", testTargetCooldown},
	{"TargetSharesAtRandom", testTargetRandom},
	{"TargetSharesUnderFire", testTargetFire},
}

const upstream = "up/m"

// use beats with one target and returns how many calls of the worker may be in
// flight from now on: those it keeps, and new ones up to its share.
func (h *harness) use(worker int64, limit, keep, want int) int {
	h.Helper()
	p := h.beat(store.Beat{Worker: worker, Lease: forever, Targets: []store.TargetUse{{Target: upstream, Limit: limit, Keep: keep, Want: want}}})
	if len(p.Targets) != 1 || p.Targets[0].Target != upstream {
		h.Fatalf("Heartbeat: got shares %+v, want one of %s", p.Targets, upstream)
	}
	return max(p.Targets[0].Slots, keep)
}

func testTargetAlone(h *harness) {
	first := h.beat(store.Beat{Host: "h", Lease: forever, Targets: []store.TargetUse{{Target: upstream, Limit: 7}}})
	if len(first.Targets) != 1 || first.Targets[0].Slots != 0 {
		h.Fatalf("the beat that starts a worker and wants nothing: got %+v", first.Targets)
	}
	w := first.Worker
	for _, c := range []struct{ limit, keep, want, slots int }{
		{7, 0, 100, 7}, {7, 2, 3, 3}, {7, 3, 0, 3}, {7, 0, 7, 7}, {7, 0, 0, 0}, {7, 0, 5, 5}, {9, 5, 20, 9},
	} {
		if got := h.use(w, c.limit, c.keep, c.want); got != c.slots {
			h.Errorf("%+v: got %d slots", c, got)
		}
	}
	p := h.beat(store.Beat{Worker: w, Lease: forever, Targets: []store.TargetUse{{Target: "b/m", Limit: 2, Want: 9}, {Target: "a/m", Want: 9}, {Target: upstream, Limit: 9, Keep: 9, Want: 9}}})
	got := map[string]int{}
	for _, s := range p.Targets {
		got[s.Target] = s.Slots
	}
	if len(p.Targets) != 3 || got["b/m"] != 2 || got["a/m"] != 0 || got[upstream] != 9 {
		h.Errorf("three targets, one of them without a limit: got %+v", p.Targets)
	}
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Targets) != 0 {
		h.Errorf("a beat that names none: got %+v", p.Targets)
	}
}

// settle beats for each worker in turn until shares stay as they are.
func (h *harness) settle(limit int, want map[int64]int) map[int64]int {
	h.Helper()
	shares := map[int64]int{}
	for range 8 {
		for w, n := range want {
			shares[w] = h.use(w, limit, 0, n)
		}
	}
	return shares
}

func testTargetShared(h *harness) {
	a, b, c := h.worker(), h.worker(), h.worker()
	if got := h.use(a, 12, 0, 50); got != 12 {
		h.Fatalf("alone: got %d slots, want 12", got)
	}
	for _, s := range []struct {
		name             string
		want             map[int64]int
		least, most, sum int
	}{
		{"two that want all", map[int64]int{a: 50, b: 50}, 5, 7, 12},
		{"three that want all", map[int64]int{a: 50, b: 50, c: 50}, 3, 5, 12},
	} {
		got, sum := h.settle(12, s.want), 0
		for w, n := range got {
			sum += n
			if n < s.least || n > s.most {
				h.Errorf("%s: worker %d has %d slots, want %d to %d", s.name, w, n, s.least, s.most)
			}
		}
		if sum != s.sum {
			h.Errorf("%s: got %v, want all %d slots in use", s.name, got, s.sum)
		}
	}
	if got := h.settle(12, map[int64]int{a: 1, b: 50, c: 0}); got[a] != 1 || got[b] != 11 || got[c] != 0 {
		h.Errorf("one that wants all beside two that do not: got %v", got)
	}
}

// testTargetDead: what a dead worker may still be using is nobody else's until
// it is reaped; one that leaves gives its share back.
func testTargetDead(h *harness) {
	dead, leaver, w := h.worker(), h.worker(), h.worker()
	h.use(dead, 10, 4, 4)
	h.use(leaver, 10, 4, 4)
	h.kill(dead)
	for range 3 {
		if got := h.use(w, 10, 0, 10); got > 2 {
			h.Fatalf("beside a dead worker that was not reaped: got %d slots, want 2 at most", got)
		}
	}
	h.beat(store.Beat{Worker: leaver, Leave: true})
	if got := h.use(w, 10, 2, 10); got != 6 {
		h.Errorf("after one left: got %d slots, want 6", got)
	}
	h.reapUntil("gave the dead worker's share back", 3, func(store.Swept) bool { return h.use(w, 10, 6, 10) == 10 })
	p := h.beat(store.Beat{Worker: dead, Lease: forever, Targets: []store.TargetUse{{Target: upstream, Limit: 10, Want: 5}}})
	if !p.Lost || len(p.Targets) > 0 && p.Targets[0].Slots > 0 {
		h.Errorf("the dead worker's beat: got %+v, want it lost and without a share", p)
	}
	if got := h.use(w, 10, 10, 10); got != 10 {
		h.Errorf("after its beat: got %d slots, want 10", got)
	}
	// A worker dies with requests: they are returned, and its share is too.
	holder := h.worker()
	h.use(w, 10, 3, 3)
	h.use(holder, 10, 7, 7)
	h.enqueue()
	h.claim(holder)
	h.kill(holder)
	h.reap(3)
	if got := h.use(w, 10, 3, 10); got != 10 {
		h.Errorf("after the reap of one with requests: got %d slots, want 10", got)
	}
}

// testTargetSilent: a worker whose lease is over keeps what it has until it is
// reaped, but more of what is free is not kept for it.
func testTargetSilent(h *harness) {
	dead, w := h.worker(), h.worker()
	h.use(w, 10, 8, 8)
	h.use(dead, 10, 0, 10)
	h.kill(dead)
	if got := h.use(w, 10, 0, 10); got != 8 {
		h.Errorf("beside a silent worker that has 2 slots of 10: got %d, want 8", got)
	}
}

// testTargetKeep: a share is not made smaller than what is in use, however many
// others want it.
func testTargetKeep(h *harness) {
	a := h.worker()
	h.use(a, 6, 0, 6)
	var others []int64
	for range 3 {
		others = append(others, h.worker())
	}
	for keep := 6; keep >= 0; keep-- {
		sum := 0
		for range 3 {
			sum = 0
			for _, w := range others {
				sum += h.use(w, 6, 0, 9)
			}
			h.use(a, 6, keep, 9)
		}
		if sum > 6-keep {
			h.Errorf("keeps %d: the others got %d of 6", keep, sum)
		}
		if keep == 0 && sum < 3 {
			h.Errorf("keeps nothing: the others got %d of 6, want their part", sum)
		}
	}
}

func testTargetLowered(h *harness) {
	a, b := h.worker(), h.worker()
	h.use(a, 10, 0, 5)
	h.use(b, 10, 0, 5)
	if got := h.use(a, 4, 3, 5); got > 4 {
		h.Errorf("limit lowered: got %d slots", got)
	}
	if got := h.use(b, 4, 0, 5); got > 1 {
		h.Errorf("limit lowered, beside 3 in use: got %d slots, want 1 at most", got)
	}
	sa, sb := 0, 0
	for range 4 {
		sa, sb = h.use(a, 4, 0, 5), h.use(b, 4, 0, 5)
	}
	if sa+sb != 4 || sa < 1 || sb < 1 {
		h.Errorf("in the end: got %d and %d slots, want 4 shared out", sa, sb)
	}
}

func testTargetCooldown(h *harness) {
	a, b := h.worker(), h.worker()
	cool := func(w int64, limit int, d time.Duration) store.TargetShare {
		h.Helper()
		p := h.beat(store.Beat{Worker: w, Lease: forever, Targets: []store.TargetUse{{Target: upstream, Limit: limit, Want: 3, Cooldown: d}}})
		if len(p.Targets) != 1 {
			h.Fatalf("got %+v, want one share", p.Targets)
		}
		return p.Targets[0]
	}
	if got := cool(a, 0, 0); got.Cooldown != 0 || got.Slots != 0 {
		h.Errorf("a target that is well: got %+v", got)
	}
	for _, c := range []struct {
		worker      int64
		limit       int
		say         time.Duration
		least, most time.Duration
	}{
		{a, 0, 10 * time.Minute, 9 * time.Minute, 10 * time.Minute},
		{b, 0, 0, 9 * time.Minute, 10 * time.Minute},
		{b, 5, time.Minute, 9 * time.Minute, 10 * time.Minute}, // the longest counts
		{b, 5, time.Hour, 59 * time.Minute, time.Hour},
		{a, 5, 0, 59 * time.Minute, time.Hour},
	} {
		if got := cool(c.worker, c.limit, c.say).Cooldown; got < c.least || got > c.most {
			h.Errorf("worker %d says %s: got %s, want %s to %s", c.worker, c.say, got, c.least, c.most)
		}
	}
	// It is over by itself.
	p := h.beat(store.Beat{Worker: a, Lease: forever, Targets: []store.TargetUse{{Target: "x/y", Cooldown: 5 * time.Millisecond}}})
	for begin := time.Now(); p.Targets[0].Cooldown != 0; {
		p = h.beat(store.Beat{Worker: b, Lease: forever, Targets: []store.TargetUse{{Target: "x/y"}}})
		if time.Since(begin) > patience {
			h.Fatalf("got %s, want it over", p.Targets[0].Cooldown)
		}
	}
}

// testTargetRandom: whatever workers say, come, leave and die, and whatever the
// limit becomes, nobody is given what another may be using.
func testTargetRandom(h *harness) {
	seed := rand.Uint64()
	h.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	limit := 8
	shares := map[int64]int{} // of those that may be using them
	var alive, dead []int64
	sum := func() (n int) {
		for _, s := range shares {
			n += s
		}
		return n
	}
	for step := range 250 {
		before, change := sum(), ""
		switch k := r.IntN(20); {
		case k == 0 || len(alive) == 0:
			w := h.worker()
			alive, shares[w], change = append(alive, w), 0, "starts"
		case k == 1:
			limit, change = 1+r.IntN(12), "limit"
		case k == 2 && len(alive) > 1:
			w := alive[0]
			alive = alive[1:]
			h.beat(store.Beat{Worker: w, Leave: true})
			delete(shares, w)
			change = "leaves"
		case k == 3 && len(alive) > 1:
			h.kill(alive[0])
			dead, alive, change = append(dead, alive[0]), alive[1:], "dies"
		case k == 4:
			for _, w := range dead {
				h.reapUntil("removed the worker", 0, func(store.Swept) bool { return h.beat(store.Beat{Worker: w, Leave: true}).Lost })
				delete(shares, w)
			}
			dead, change = nil, "reap"
		default:
			w := alive[r.IntN(len(alive))]
			own := shares[w]
			keep := r.IntN(own + 1)
			got := h.use(w, limit, keep, r.IntN(15))
			shares[w], change = got, "beat"
			if got > own && sum() > limit {
				h.Fatalf("step %d: worker %d grew from %d to %d, with %d given out of %d", step, w, own, got, sum(), limit)
			}
		}
		if after := sum(); after > max(limit, before) {
			h.Fatalf("step %d, %s: got %d slots given out of %d, had %d", step, change, after, limit, before)
		}
		if r.IntN(10) == 0 && sum() > 0 {
			h.wantShared(sum())
		}
	}
}

// testTargetFire: the same, by many at once, of targets in every order.
func testTargetFire(h *harness) {
	const workers, limit = 6, 5
	var mu sync.Mutex
	inUse := map[string]int{} // slots that workers believe to have
	names := []string{"a/m", "b/m", "c/m"}
	var wg sync.WaitGroup
	for i := range workers {
		w := h.worker()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			own := map[string]int{}
			for range 40 {
				b := store.Beat{Worker: w, Lease: forever}
				for _, k := range r.Perm(len(names)) {
					keep := 0
					if own[names[k]] > 0 {
						keep = r.IntN(own[names[k]] + 1)
					}
					// What it does not keep it stops to use before it asks.
					mu.Lock()
					inUse[names[k]] -= own[names[k]] - keep
					mu.Unlock()
					own[names[k]] = keep
					b.Targets = append(b.Targets, store.TargetUse{Target: names[k], Limit: limit, Keep: keep, Want: r.IntN(8)})
				}
				p, err := h.d.Heartbeat(h.Context(), b)
				if err != nil {
					h.Errorf("Heartbeat: %v", err)
					return
				}
				mu.Lock()
				for _, s := range p.Targets {
					inUse[s.Target] += max(s.Slots, own[s.Target]) - own[s.Target]
					own[s.Target] = max(s.Slots, own[s.Target])
					if inUse[s.Target] > limit {
						h.Errorf("%s: got %d slots in use, want %d at most", s.Target, inUse[s.Target], limit)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	last := map[string]string{}
	for name, n := range inUse {
		if n > limit {
			last[name] = fmt.Sprint(n)
		}
	}
	if len(last) > 0 {
		h.Errorf("at the end: got %v slots of %d", last, limit)
	}
}

// wantShared checks that the database counts at least what workers may be using.
func (h *harness) wantShared(least int) {
	h.Helper()
	r, err := h.d.Inspect(h.Context())
	if err != nil {
		h.Fatalf("Inspect: %v", err)
	}
	for _, t := range r.Targets {
		if t.Target == upstream && t.Shared >= least {
			return
		}
	}
	h.Errorf("Inspect: got targets %+v, want %d slots of %s shared out", r.Targets, least, upstream)
}
