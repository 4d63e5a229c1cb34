package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var kvCases = []testCase{
	{"KV", testKV},
	{"KVChecked", testKVChecked},
	{"KVCheckedInABatch", testKVBatch},
	{"KVConflictLeavesOnlyUsage", testKVConflict},
	{"KVOneOfTwoWritersWins", testKVRace},
	{"KVCountsEveryWriter", testKVCount},
}

func testKV(h *harness) {
	w := h.worker()
	a := h.running(w)
	h.must(store.Write{Fence: a.Fence(), KV: []store.KVPut{
		{Plugin: "notes", Key: "k", Value: []byte("a\x00b")},
		{Plugin: "other", Key: "k", Value: nil},
	}})
	h.must(store.Write{Insert: request(of("tenant-b", model))})
	b := h.start(h.claim(w))
	h.must(store.Write{Fence: b.Fence(), KV: []store.KVPut{{Plugin: "notes", Key: "k", Value: []byte("b")}}})
	for _, want := range []struct {
		tenant, plugin, key, value string
		ok                         bool
	}{
		{tenant, "notes", "k", "a\x00b", true},
		{tenant, "other", "k", "", true},
		{"tenant-b", "notes", "k", "b", true},
		{"tenant-b", "other", "k", "", false},
		{tenant, "notes", "x", "", false},
	} {
		v, ok, err := h.d.KVGet(h.Context(), want.tenant, want.plugin, want.key)
		if err != nil || ok != want.ok || string(v) != want.value {
			h.Errorf("KVGet(%s, %s, %s): got %q, %t, %v", want.tenant, want.plugin, want.key, v, ok, err)
		}
	}
	h.must(store.Write{Fence: a.Fence(), KV: []store.KVPut{{Plugin: "notes", Key: "k", Value: []byte("2")}, {Plugin: "notes", Key: "k", Value: []byte("3")}}})
	h.wantKV("notes", "k", "3", true)
}

// wantKV checks a key of the default tenant.
func (h *harness) wantKV(plugin, key, value string, ok bool) {
	h.Helper()
	v, have, err := h.d.KVGet(h.Context(), tenant, plugin, key)
	if err != nil || have != ok || string(v) != value {
		h.Errorf("KVGet(%s, %s): got %q, %t, %v, want %q, %t", plugin, key, v, have, err, value, ok)
	}
}

// fresh is a put that was computed from no value, change one from was.
func fresh(key, value string) store.KVPut {
	return store.KVPut{Plugin: "p", Key: key, Value: []byte(value), Checked: true}
}

func change(key, was, value string) store.KVPut {
	return store.KVPut{Plugin: "p", Key: key, Value: []byte(value), Checked: true, Had: true, Was: []byte(was)}
}

func testKVChecked(h *harness) {
	c := h.running(h.worker())
	for i, step := range []struct {
		put  store.KVPut
		want error
		now  string
		have bool
	}{
		{change("k", "", "1"), store.ErrConflict, "", false},
		{fresh("k", ""), nil, "", true},
		{fresh("k", "1"), store.ErrConflict, "", true},
		{change("k", "", "1"), nil, "1", true},
		{change("k", "0", "2"), store.ErrConflict, "1", true},
		{change("k", "1", "2"), nil, "2", true},
		{store.KVPut{Plugin: "p", Key: "k", Value: []byte("3")}, nil, "3", true},
		{change("k", "2", "4"), store.ErrConflict, "3", true},
	} {
		if err := h.write(store.Write{Fence: c.Fence(), KV: []store.KVPut{step.put}}); !errors.Is(err, step.want) {
			h.Errorf("put %d: got %v, want %v", i, err, step.want)
		}
		h.wantKV("p", "k", step.now, step.have)
	}
	// With the insert of its request; one that is refused leaves no request.
	first, second := request(), request()
	h.must(store.Write{Insert: first, KV: []store.KVPut{fresh("i", "1")}})
	if err := h.write(store.Write{Insert: second, KV: []store.KVPut{fresh("i", "2")}}); !errors.Is(err, store.ErrConflict) {
		h.Errorf("insert: got %v, want ErrConflict", err)
	}
	h.wantKV("p", "i", "1", true)
	if _, err := h.d.Get(h.Context(), "", second.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Get: got %v, want ErrNotFound", err)
	}
}

// testKVBatch: a write sees the puts of those before it in its batch.
func testKVBatch(h *harness) {
	w := h.worker()
	a, b := h.running(w), h.running(w)
	stale := a.Fence()
	stale.Attempt = 9
	results, err := h.d.Write(h.Context(), []store.Write{
		puts(stale, fresh("only", "lost")),
		puts(a.Fence(), fresh("k", "1")),
		puts(b.Fence(), fresh("k", "2"), fresh("rest", "2")),
		puts(b.Fence(), change("k", "1", "3")),
		puts(a.Fence(), store.KVPut{Plugin: "p", Key: "k", Value: []byte("4")}),
		puts(b.Fence(), change("k", "3", "5")),
		puts(a.Fence(), change("k", "4", "6")),
	})
	if err != nil {
		h.Fatalf("Write: %v", err)
	}
	for i, want := range []error{queue.ErrLeaseLost, nil, store.ErrConflict, nil, nil, store.ErrConflict, nil} {
		if !errors.Is(results[i], want) {
			h.Errorf("write %d: got %v, want %v", i, results[i], want)
		}
	}
	h.wantKV("p", "k", "6", true)
	h.wantKV("p", "rest", "", false)
	h.wantKV("p", "only", "", false)
}

func testKVConflict(h *harness) {
	h.capped(1)
	c := h.running(h.worker())
	w := full(c.Fence())
	w.KV = append(w.KV, change("k", "x", "y"))
	if err := h.write(w); !errors.Is(err, store.ErrConflict) {
		h.Errorf("got %v, want ErrConflict", err)
	}
	h.wantState(c.ID, queue.Processing)
	h.wantNothing(c.ID)
	h.wantExact()
	w.KV[1] = fresh("k", "y")
	h.must(w)
	h.wantState(c.ID, queue.Completed)
}

// testKVRace: of two writes that were computed from the same values, whatever
// the order of their puts, one is committed and the other leaves nothing.
func testKVRace(h *harness) {
	w := h.worker()
	a, b := h.running(w), h.running(w)
	for round := range rounds {
		// A new pair of keys every second round, else the one of the round before.
		one, two := fmt.Sprint("one", round/2), fmt.Sprint("two", round/2)
		was := ""
		put := func(key, value string) store.KVPut {
			if round%2 == 0 {
				return fresh(key, value)
			}
			return change(key, was, value)
		}
		if round%2 == 1 {
			v, _, err := h.d.KVGet(h.Context(), tenant, "p", one)
			if err != nil {
				h.Fatal(err)
			}
			was = string(v)
		}
		var errA, errB error
		race(round,
			func() { errA = h.try(puts(a.Fence(), put(one, "a"+was), put(two, "a"+was))) },
			func() { errB = h.try(puts(b.Fence(), put(two, "b"+was), put(one, "b"+was))) })
		want := "a" + was
		if errA != nil {
			want = "b" + was
		}
		if (errA == nil) == (errB == nil) || !errors.Is(errors.Join(errA, errB), store.ErrConflict) {
			h.Errorf("round %d: got %v and %v, want one winner and ErrConflict", round, errA, errB)
		}
		h.wantKV("p", one, want, true)
		h.wantKV("p", two, want, true)
	}
}

// puts is a write of puts.
func puts(f queue.Fence, kv ...store.KVPut) store.Write { return store.Write{Fence: f, KV: kv} }

// testKVCount: no increment of a counter is lost, while others write beside it.
func testKVCount(h *harness) {
	const writers, each = 4, 8
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	w := h.worker()
	var wg sync.WaitGroup
	for i := range writers {
		c := h.running(w)
		wg.Go(func() {
			for n, tries := 0, 0; n < each && ctx.Err() == nil; tries++ {
				v, ok, err := h.d.KVGet(h.Context(), tenant, "p", "n")
				if err != nil {
					h.Errorf("KVGet: %v", err)
					return
				}
				old, _ := strconv.Atoi(string(v))
				beside := store.KVPut{Plugin: "p", Key: []string{"a", "z"}[(i+tries)%2], Value: v}
				err = h.try(puts(c.Fence(), beside, store.KVPut{
					Plugin: "p", Key: "n", Value: []byte(strconv.Itoa(old + 1)), Checked: true, Was: v, Had: ok,
				}, store.KVPut{Plugin: "p", Key: "m", Value: v}))
				if err == nil {
					n++
					continue
				}
				if !errors.Is(err, store.ErrConflict) {
					h.Errorf("Write: %v", err)
					return
				}
				if err := h.try(puts(c.Fence(), store.KVPut{Plugin: "p", Key: "z", Value: v}, beside)); err != nil {
					h.Errorf("Write: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	h.wantKV("p", "n", strconv.Itoa(writers*each), true)
}
