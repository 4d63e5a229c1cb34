package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var kvLifeCases = []testCase{
	{"KVDelete", testKVDelete},
	{"KVDeletesInABatch", testKVDeleteBatch},
	{"KVOneOfTwoDeletersWins", testKVDeleteRace},
	{"KVExpires", testKVExpires},
	{"KVExpiredIsAbsentToChecks", testKVExpiredChecks},
	{"KVIsSwept", testKVSwept},
	{"KVList", testKVList},
	{"KVListByBytes", testKVListOrder},
	{"KVUsed", testKVUsed},
}

// remove is a delete, dropped one that was computed from was.
func remove(key string) store.KVPut { return store.KVPut{Plugin: "p", Key: key, Delete: true} }

func dropped(key, was string) store.KVPut {
	return store.KVPut{Plugin: "p", Key: key, Delete: true, Checked: true, Had: true, Was: []byte(was)}
}

// lasting is a put for a time.
func lasting(key, value string, ttl time.Duration) store.KVPut {
	return store.KVPut{Plugin: "p", Key: key, Value: []byte(value), TTL: ttl}
}

const moment = time.Millisecond

// expired puts keys whose time is up when it returns.
func (h *harness) expired(f queue.Fence, keys ...string) {
	h.Helper()
	var all []store.KVPut
	for _, k := range keys {
		all = append(all, lasting(k, "old", moment))
	}
	h.must(puts(f, all...))
	for begin := time.Now(); ; {
		n, _, err := h.d.KVUsed(h.Context(), tenant, "p")
		if err != nil {
			h.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Since(begin) > patience {
			h.Fatalf("%d keys outlive their time", n)
		}
	}
}

func testKVDelete(h *harness) {
	f := h.running(h.worker()).Fence()
	for i, step := range []struct {
		put  store.KVPut
		want error
		have bool
	}{
		{remove("k"), nil, false},
		{dropped("k", "1"), store.ErrConflict, false},
		{store.KVPut{Plugin: "p", Key: "k", Delete: true, Checked: true}, nil, false},
		{fresh("k", "1"), nil, true},
		{dropped("k", "2"), store.ErrConflict, true},
		{store.KVPut{Plugin: "p", Key: "k", Delete: true, Checked: true}, store.ErrConflict, true},
		{dropped("k", "1"), nil, false},
		{change("k", "1", "2"), store.ErrConflict, false},
		{fresh("k", "1"), nil, true},
		{remove("k"), nil, false},
	} {
		if err := h.write(puts(f, step.put)); !errors.Is(err, step.want) {
			h.Errorf("put %d: got %v, want %v", i, err, step.want)
		}
		value := ""
		if step.have {
			value = "1"
		}
		h.wantKV("p", "k", value, step.have)
	}
	h.must(puts(f, fresh("k", "1"), fresh("other", "2")))
	f.Attempt++
	h.lost(puts(f, remove("k")))
	h.wantKV("p", "k", "1", true)
}

// testKVDeleteBatch: in one batch, as in one write, the last word on a key counts,
// and what comes before it is seen.
func testKVDeleteBatch(h *harness) {
	w := h.worker()
	a, b := h.running(w).Fence(), h.running(w).Fence()
	h.must(puts(a, fresh("there", "1"), fresh("kept", "1")))
	results, err := h.d.Write(h.Context(), []store.Write{
		puts(a, dropped("there", "1"), remove("never"), fresh("brief", "1"), store.KVPut{Plugin: "p", Key: "twice", Value: []byte("1")}),
		puts(b, dropped("there", "1"), remove("kept")),
		puts(b, fresh("there", "2"), dropped("brief", "1"), remove("twice"), store.KVPut{Plugin: "p", Key: "twice", Value: []byte("2")}),
		puts(a, change("there", "2", "3"), fresh("brief", "3"), remove("brief")),
	})
	if err != nil {
		h.Fatalf("Write: %v", err)
	}
	for i, want := range []error{nil, store.ErrConflict, nil, nil} {
		if !errors.Is(results[i], want) {
			h.Errorf("write %d: got %v, want %v", i, results[i], want)
		}
	}
	for key, value := range map[string]string{"there": "3", "kept": "1", "never": "", "brief": "", "twice": "2"} {
		h.wantKV("p", key, value, value != "")
	}
	h.wantKeys("kept", "there", "twice")
}

// many returns puts of so many keys that their writes overlap, and deletes of them.
func many(name string) (set, gone []store.KVPut) {
	for i := range 60 {
		key := fmt.Sprint(name, i)
		set, gone = append(set, store.KVPut{Plugin: "p", Key: key}), append(gone, remove(key))
	}
	return set, gone
}

// testKVDeleteRace: of a delete and a change that were computed from the same
// value one is made, and deletes in opposite orders do not wait in a circle.
func testKVDeleteRace(h *harness) {
	w := h.worker()
	a, b := h.running(w).Fence(), h.running(w).Fence()
	for round := range rounds {
		h.must(puts(a, store.KVPut{Plugin: "p", Key: "k", Value: []byte("1")}))
		var errA, errB error
		race(round,
			func() { errA = h.try(puts(a, dropped("k", "1"))) },
			func() { errB = h.try(puts(b, change("k", "1", "2"))) })
		if (errA == nil) == (errB == nil) || !errors.Is(errors.Join(errA, errB), store.ErrConflict) {
			h.Errorf("round %d: got %v and %v, want one winner and ErrConflict", round, errA, errB)
		}
		value := ""
		if errA != nil {
			value = "2"
		}
		h.wantKV("p", "k", value, errA != nil)
		ones, noOnes := many("one")
		twos, noTwos := many("two")
		h.must(puts(a, append(ones, twos...)...))
		race(round,
			func() { errA = h.try(puts(a, append(noOnes, twos...)...)) },
			func() { errB = h.try(puts(b, append(noTwos, ones...)...)) })
		if err := errors.Join(errA, errB); err != nil {
			h.Errorf("round %d: %v", round, err)
		}
	}
}

func testKVExpires(h *harness) {
	f := h.running(h.worker()).Fence()
	h.must(puts(f, lasting("long", "1", forever)))
	h.wantKV("p", "long", "1", true)
	h.wantKeys("long")
	h.must(puts(f, remove("long")))
	h.expired(f, "a", "b")
	h.wantKV("p", "a", "", false)
	h.wantKeys()
	// Put again, a key's time is that of the last put.
	h.must(puts(f, lasting("a", "new", 0), lasting("b", "new", forever)))
	h.sweep()
	h.wantKV("p", "a", "new", true)
	h.wantKV("p", "b", "new", true)
	h.must(puts(f, remove("a"), lasting("b", "brief", moment)))
	h.expired(f)
	h.wantKV("p", "b", "", false)
}

func testKVExpiredChecks(h *harness) {
	f := h.running(h.worker()).Fence()
	keys := []string{"changed", "dropped", "fresh", "gone"}
	h.expired(f, keys...)
	for _, c := range []struct {
		put  store.KVPut
		want error
	}{
		{change("changed", "old", "new"), store.ErrConflict},
		{dropped("dropped", "old"), store.ErrConflict},
		{fresh("fresh", "new"), nil},
		{store.KVPut{Plugin: "p", Key: "gone", Delete: true, Checked: true}, nil},
	} {
		if err := h.write(puts(f, c.put)); !errors.Is(err, c.want) {
			h.Errorf("%s: got %v, want %v", c.put.Key, err, c.want)
		}
	}
	h.wantKeys("fresh")
	if s := h.sweep(); s.Keys != 2 {
		h.Errorf("swept %d keys, want the two that a refused write left", s.Keys)
	}
	h.wantKV("p", "fresh", "new", true)
}

// testKVSwept: a sweep removes what is expired, in batches, and nothing else.
func testKVSwept(h *harness) {
	f := h.running(h.worker()).Fence()
	var keys []string
	for i := range 7 {
		keys = append(keys, fmt.Sprint(i))
	}
	h.expired(f, keys...)
	h.must(puts(f, lasting("long", "1", forever), lasting("ever", "1", 0)))
	s, err := h.d.Sweep(h.Context(), store.SweepRequest{Limit: 2})
	if err != nil || s.Keys != 7 {
		h.Errorf("Sweep: got %+v, %v, want 7 keys in batches of 2", s, err)
	}
	if s := h.sweep(); s.Keys != 0 {
		h.Errorf("second sweep: got %+v", s)
	}
	h.wantKeys("ever", "long")
}

// wantKeys checks all keys of plugin p.
func (h *harness) wantKeys(want ...string) {
	h.Helper()
	got, err := h.d.KVList(h.Context(), store.KVRange{Tenant: tenant, Plugin: "p", Limit: 100})
	if err != nil || !slices.Equal(got, want) {
		h.Errorf("KVList: got %q, %v, want %q", got, err, want)
	}
}

func testKVList(h *harness) {
	f := h.running(h.worker()).Fence()
	var all []store.KVPut
	for _, k := range []string{"a", "a%b", "a_b", "ab", "axb", `a\`, `a\b`, "b", "é", "é1", "ê", "\U0010FFFF", "\U0010FFFFx", "\uD7FF", "\uE000"} {
		all = append(all, store.KVPut{Plugin: "p", Key: k, Value: []byte("v")})
	}
	all = append(all, store.KVPut{Plugin: "q", Key: "ab"})
	h.must(puts(f, all...))
	h.must(store.Write{Insert: request(of("tenant-b", model)), KV: []store.KVPut{{Plugin: "p", Key: "ab"}}})
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"a", "", 100, []string{"a", "a%b", `a\`, `a\b`, "a_b", "ab", "axb"}},
		{"a%", "", 100, []string{"a%b"}},
		{"a_", "", 100, []string{"a_b"}},
		{`a\`, "", 100, []string{`a\`, `a\b`}},
		{"a", "", 2, []string{"a", "a%b"}},
		{"a", "a%b", 2, []string{`a\`, `a\b`}},
		{"a", "axa", 100, []string{"axb"}},
		{"a", "axb", 100, nil},
		{"a", "zzz", 100, nil},
		{"b", "a", 100, []string{"b"}},
		{"é", "", 100, []string{"é", "é1"}},
		{"\U0010FFFF", "", 100, []string{"\U0010FFFF", "\U0010FFFFx"}},
		{"\uD7FF", "", 100, []string{"\uD7FF"}},
		{"", "ê", 100, []string{"\uD7FF", "\uE000", "\U0010FFFF", "\U0010FFFFx"}},
		{"none", "", 100, nil},
	} {
		got, err := h.d.KVList(h.Context(), store.KVRange{Tenant: tenant, Plugin: "p", Prefix: c.prefix, After: c.after, Limit: c.limit})
		if err != nil || !slices.Equal(got, c.want) {
			h.Errorf("KVList(%q after %q, %d): got %q, %v, want %q", c.prefix, c.after, c.limit, got, err, c.want)
		}
	}
}

// testKVListOrder reads many keys page by page and compares with Go's order,
// which is that of bytes.
func testKVListOrder(h *harness) {
	f := h.running(h.worker()).Fence()
	var want []string
	var all []store.KVPut
	for _, first := range strings.Split("a A z Z é _ - 0 \u007f ¿ ß 世 😀 \uffff", " ") {
		for _, second := range strings.Split("|b|B| |.|é", "|") {
			want = append(want, first+second)
			all = append(all, store.KVPut{Plugin: "p", Key: first + second})
		}
	}
	h.must(puts(f, all...))
	slices.Sort(want)
	var got []string
	for after := ""; ; {
		page, err := h.d.KVList(h.Context(), store.KVRange{Tenant: tenant, Plugin: "p", After: after, Limit: 7})
		if err != nil {
			h.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		after = page[len(page)-1]
	}
	if !slices.Equal(got, want) {
		h.Errorf("got %q, want %q", got, want)
	}
}

func testKVUsed(h *harness) {
	f := h.running(h.worker()).Fence()
	used := func(plugin string, keys int, bytes int64) {
		h.Helper()
		n, b, err := h.d.KVUsed(h.Context(), tenant, plugin)
		if err != nil || n != keys || b != bytes {
			h.Errorf("KVUsed(%s): got %d keys, %d bytes, %v, want %d, %d", plugin, n, b, err, keys, bytes)
		}
	}
	used("p", 0, 0)
	h.expired(f, "x", "y")
	h.must(puts(f, fresh("a", "123"), fresh("é", ""), fresh("big", strings.Repeat("v", 100_000)), store.KVPut{Plugin: "q", Key: "k", Value: []byte("1")}))
	used("p", 3, 1+3+2+3+100_000)
	used("q", 1, 2)
	h.must(puts(f, remove("big"), change("a", "123", "4")))
	used("p", 2, 1+1+2)
}
