package store_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/casemate/casemate/host/store"
)

func TestAllot(t *testing.T) {
	type h = store.Holding
	for _, c := range []struct {
		name   string
		limit  int
		own    h
		others []h
		want   int
	}{
		{"alone it gets what it wants", 10, h{1, 0, 4, 0}, nil, 4},
		{"alone it gets the whole limit", 10, h{1, 0, 99, 0}, nil, 10},
		{"only what is free", 10, h{2, 0, 10, 0}, []h{{1, 8, 10, 0}}, 2},
		{"nothing is free", 10, h{2, 0, 10, 0}, []h{{1, 10, 10, 0}}, 0},
		{"who has more gives back", 10, h{1, 10, 10, 0}, []h{{2, 0, 10, 0}}, 5},
		{"but not what it uses", 10, h{1, 10, 10, 7}, []h{{2, 0, 10, 0}}, 7},
		{"only as much as others want", 10, h{1, 10, 10, 0}, []h{{2, 0, 3, 0}}, 7},
		{"what it does not want it gives back", 10, h{1, 10, 2, 1}, nil, 2},
		{"unless it uses it", 10, h{1, 10, 2, 6}, nil, 6},
		{"what it never had it does not keep", 10, h{1, 0, 0, 5}, []h{{2, 5, 5, 0}}, 0},
		{"nor beyond its share", 10, h{1, 3, 0, 5}, []h{{2, 5, 5, 0}}, 3},
		{"others that want nothing count by what they have", 10, h{1, 0, 10, 0}, []h{{2, 4, 0, 0}}, 6},
		{"a lower limit shrinks it", 4, h{1, 10, 10, 0}, nil, 4},
		{"a lower limit leaves what it uses", 4, h{1, 10, 10, 6}, nil, 6},
		{"of an odd limit who has more keeps more", 5, h{2, 3, 9, 0}, []h{{1, 2, 9, 0}}, 3},
		{"else the oldest gets more", 5, h{1, 0, 9, 0}, []h{{2, 0, 9, 0}}, 3},
		{"and the youngest less", 5, h{2, 0, 9, 0}, []h{{1, 0, 9, 0}}, 2},
		{"nobody is left out", 4, h{1, 2, 9, 0}, []h{{2, 2, 9, 0}, {3, 0, 9, 0}}, 2},
		{"who has as much as the odd one gives it back", 4, h{2, 2, 9, 0}, []h{{1, 2, 9, 0}, {3, 0, 9, 0}}, 1},
		{"no limit left, nothing kept", 0, h{1, 3, 3, 0}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := store.Allot(c.limit, c.own, c.others, time.Time{}); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	own, other := store.Holding{Worker: 1, Slots: 10, Want: 10, Keep: 10}, store.Holding{Worker: 2, Want: 10}
	if got := store.Usable(10, own, []store.Holding{other}, time.Time{}); got != 5 {
		t.Errorf("a worker that uses all of 10 slots while another wants them: got %d, want 5", got)
	}
	if got := store.Usable(10, own, nil, time.Time{}); got != 10 {
		t.Errorf("alone: got %d, want 10", got)
	}
	other.Slots = 8
	if got := store.Usable(10, store.Holding{Worker: 1, Want: 10}, []store.Holding{other}, time.Time{}); got != 2 {
		t.Errorf("two are free: got %d, want 2", got)
	}
}

// TestAllotInTurn: of workers of which each wants a slot and there are fewer, each
// is entitled to one for a while, and all slots are used all the time.
func TestAllotInTurn(t *testing.T) {
	for workers := 2; workers <= 7; workers++ {
		for limit := 1; limit < workers; limit++ {
			all := make([]store.Holding, workers)
			for i := range all {
				all[i] = store.Holding{Worker: int64(10 * (i + 1)), Want: 1 + i}
			}
			had := make([]int, workers)
			now := time.UnixMilli(1790000000000)
			for range workers {
				now = now.Add(20 * time.Second)
				for range 2 { // who has to give its slot up may beat after who gets it
					for i := range all {
						all[i].Slots = store.Allot(limit, all[i], slices.Delete(slices.Clone(all), i, i+1), now)
					}
				}
				for i := range all {
					had[i] += all[i].Slots
				}
				if got := sum(all); got != limit {
					t.Fatalf("%d workers, limit %d: %d slots are given out", workers, limit, got)
				}
			}
			if slices.ContainsFunc(had, func(n int) bool { return n != limit }) {
				t.Errorf("%d workers, limit %d: in %d turns they had %v slots, want %d each", workers, limit, workers, had, limit)
			}
		}
	}
}

// TestAllotProperties has workers beat in random order with random wants: the
// sum never exceeds the limit, nobody falls below what it keeps, and once wants
// stand still, three rounds of beats make all the shares fair and use the limit up.
func TestAllotProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		limit := r.IntN(20)
		all := make([]store.Holding, 1+r.IntN(6))
		now := time.UnixMilli(r.Int64N(1 << 42))
		for i := range all {
			all[i].Worker = int64(i + 1)
		}
		beat := func(i int) {
			before := all[i]
			others := slices.Delete(slices.Clone(all), i, i+1)
			all[i].Slots = store.Allot(limit, before, others, now)
			if sum := sum(all); sum > limit {
				t.Fatalf("limit %d: shares %+v add up to %d", limit, all, sum)
			}
			if keep := min(before.Keep, before.Slots); all[i].Slots < keep {
				t.Fatalf("%+v got %d, less than it keeps", before, all[i].Slots)
			}
		}
		for range 30 {
			i := r.IntN(len(all))
			all[i].Want = r.IntN(12)
			all[i].Keep = r.IntN(all[i].Slots + 1)
			beat(i)
		}
		wanted := 0
		for i := range all {
			all[i].Keep = 0
			wanted += all[i].Want
		}
		for range 3 {
			for i := range all {
				beat(i)
			}
		}
		if got := sum(all); got != min(limit, wanted) {
			t.Fatalf("limit %d, shares %+v: %d in use, want %d", limit, all, got, min(limit, wanted))
		}
		for _, a := range all {
			for _, b := range all {
				if a.Slots > b.Slots+1 && b.Want > b.Slots {
					t.Fatalf("limit %d: %+v has too much beside %+v", limit, a, b)
				}
			}
		}
	}
}

func sum(all []store.Holding) (n int) {
	for _, h := range all {
		n += h.Slots
	}
	return n
}
