package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var onceCases = []testCase{
	{"KeyInsertsOnce", testKeyOnce},
	{"KeyIsOfItsTenant", testKeyTenant},
	{"KeyTwiceInOneBatch", testKeyBatch},
	{"KeyIsFreeAfterARefusal", testKeyRefused},
	{"KeyOfAWithdrawnRequestIsFree", testKeyWithdrawn},
	{"KeyOutlivesItsRequest", testKeyDeleted},
}

var onceRaceCases = []testCase{
	{"KeyRaced", testKeyRaced},
	{"KeysRacedInBatches", testKeysRaced},
}

func keyed(key, hash string, change ...func(*queue.New)) store.Write {
	return store.Write{Insert: request(change...), Key: &store.Key{Key: key, Hash: []byte(hash)}}
}

// wantRepeated checks that a write was refused since its key stands for id.
func (h *harness) wantRepeated(err error, id queue.ID, same bool) {
	h.Helper()
	var r *store.Repeated
	if !errors.As(err, &r) || !errors.Is(err, store.ErrRepeated) || r.ID != id || r.Same != same {
		h.Errorf("got %v, want it repeated: %s, same body %t", err, id, same)
	}
}

// wantUnkeyed checks that a key stands for nothing.
func (h *harness) wantUnkeyed(tenant, key string) {
	h.Helper()
	if before, err := h.d.Keyed(h.Context(), tenant, store.Key{Key: key, Hash: []byte("a")}); before != nil || err != nil {
		h.Errorf("Keyed of %q: got %+v, %v, want none", key, before, err)
	}
}

func (h *harness) wantNone(id queue.ID) {
	h.Helper()
	if _, err := h.d.Get(h.Context(), "", id, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Get of what was refused: got %v, want ErrNotFound", err)
	}
}

func testKeyOnce(h *harness) {
	first := keyed("k", "a")
	h.must(first)
	for _, c := range []struct {
		hash string
		same bool
	}{{"a", true}, {"b", false}} {
		again := keyed("k", c.hash)
		h.wantRepeated(h.write(again), first.Insert.ID, c.same)
		h.wantNone(again.Insert.ID)
		before, err := h.d.Keyed(h.Context(), first.Insert.Tenant, *again.Key)
		if err != nil || before == nil || before.ID != first.Insert.ID || before.Same != c.same {
			h.Errorf("Keyed: got %+v, %v", before, err)
		}
	}
	h.wantUnkeyed(first.Insert.Tenant, "K")
	h.wantUnkeyed("other", "k")
	h.must(keyed("K", "a"))
	h.must(store.Write{Insert: request()})
	if err := h.write(first); !errors.Is(err, store.ErrExists) {
		h.Errorf("the same request again: got %v, want ErrExists", err)
	}
	h.wantRepeated(h.write(keyed("k", "a")), first.Insert.ID, true)
	if n := h.stats().States[queue.Pending]; n != 3 {
		h.Errorf("got %d requests, want 3", n)
	}
}

func testKeyTenant(h *harness) {
	h.must(keyed("k", "a"))
	h.must(keyed("k", "b", of("tenant-b", model)))
	h.must(keyed("k'; --\u00e9", "b"))
}

// testKeyBatch: of two with one key in one batch the first that is not refused
// has it.
func testKeyBatch(h *harness) {
	w := h.worker()
	h.capped(1)
	h.must(store.Write{Insert: request(by(w))})
	full, first, second := keyed("k", "f", by(w)), keyed("k", "a"), keyed("k", "a")
	other := keyed("l", "o", by(w))
	results, err := h.d.Write(h.Context(), []store.Write{full, other, first, second})
	if err != nil {
		h.Fatal(err)
	}
	if !errors.Is(results[0], queue.ErrAtCap) || !errors.Is(results[1], queue.ErrAtCap) || results[2] != nil {
		h.Errorf("got %v, want two refused by the cap, then one inserted", results)
	}
	h.wantRepeated(results[3], first.Insert.ID, true)
	h.wantRepeated(h.write(keyed("k", "b")), first.Insert.ID, false)
	h.must(keyed("l", "o"))
	h.wantExact()
}

func testKeyRefused(h *harness) {
	w := h.worker()
	h.capped(1)
	h.must(store.Write{Insert: request(by(w))})
	if err := h.write(keyed("k", "a", by(w))); !errors.Is(err, queue.ErrAtCap) {
		h.Errorf("got %v, want ErrAtCap", err)
	}
	if err := h.write(keyed("k", "a", by(w+99))); !errors.Is(err, queue.ErrLeaseLost) {
		h.Errorf("got %v, want ErrLeaseLost", err)
	}
	second := keyed("k", "b")
	h.must(second)
	h.wantRepeated(h.write(keyed("k", "b", by(w))), second.Insert.ID, true)
}

// testKeyWithdrawn: nobody was told of a request that was taken back, but of one
// that was canceled somebody was.
func testKeyWithdrawn(h *harness) {
	w := keyed("k", "a")
	h.must(w)
	h.cancel(w.Insert.ID)
	h.wantRepeated(h.write(keyed("k", "a")), w.Insert.ID, true)
	w = keyed("l", "a")
	h.must(w)
	back := move(w.Fenced(), queue.Canceled, queue.ByCancel)
	back.Move.Class, back.Move.Code = queue.ClassCanceled, store.Withdrawn
	h.must(back)
	h.wantUnkeyed(w.Insert.Tenant, "l")
	again := keyed("l", "b")
	h.must(again)
	h.wantRepeated(h.write(keyed("l", "b")), again.Insert.ID, true)
}

func testKeyDeleted(h *harness) {
	w := keyed("k", "a")
	h.must(w)
	h.cancel(w.Insert.ID)
	if err := h.d.Delete(h.Context(), tenant, w.Insert.ID); err != nil {
		h.Fatal(err)
	}
	h.wantRepeated(h.write(keyed("k", "a")), w.Insert.ID, true)
}

// testKeyRaced: of many with one key at once, exactly one wins, and the others
// are told which.
func testKeyRaced(h *harness) {
	const hosts = 6
	for round := range rounds / 2 {
		writes, errs := make([]store.Write, hosts), make([]error, hosts)
		var wg sync.WaitGroup
		for i := range hosts {
			writes[i] = keyed(fmt.Sprint("k", round), fmt.Sprint(i%2))
			wg.Go(func() { errs[i] = h.try(writes[i]) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil && winner >= 0 {
				h.Fatalf("round %d: %d and %d were both inserted", round, winner, i)
			}
			if err == nil {
				winner = i
			}
		}
		if winner < 0 {
			h.Fatalf("round %d: nobody won: %v", round, errs)
		}
		for i, err := range errs {
			if i != winner {
				h.wantRepeated(err, writes[winner].Insert.ID, i%2 == winner%2)
				h.wantNone(writes[i].Insert.ID)
			}
		}
	}
}

// testKeysRaced writes batches of keys in opposite orders: nobody waits in a
// circle, and each key stands for one request.
func testKeysRaced(h *harness) {
	const keys = 20
	for round := range 10 {
		batches := make([][]store.Write, 4)
		for b := range batches {
			for k := range keys {
				if b%2 == 1 {
					k = keys - k - 1
				}
				batches[b] = append(batches[b], keyed(fmt.Sprint(round, "-", k), "h"))
			}
		}
		won := make([]int, len(batches))
		var wg sync.WaitGroup
		for b, writes := range batches {
			wg.Go(func() {
				results, err := h.d.Write(h.Context(), writes)
				if err != nil {
					h.Errorf("Write: %v", err)
				}
				for _, err := range results {
					switch {
					case err == nil:
						won[b]++
					case !errors.Is(err, store.ErrRepeated):
						h.Errorf("Write: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if n := won[0] + won[1] + won[2] + won[3]; n != keys {
			h.Errorf("round %d: %v inserted, want %d together", round, won, keys)
		}
	}
}
