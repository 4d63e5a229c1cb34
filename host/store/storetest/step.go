package storetest

import (
	"errors"
	"math"
	"reflect"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var stepCases = []testCase{
	{"Steps", testSteps},
	{"SettledStepsNeverChange", testSettled},
	{"EventsAreAppended", testEventsAppend},
	{"Decisions", testDecisions},
	{"UsageIsAppendOnly", testUsage},
	{"KV", testKV},
}

func testSteps(h *harness) {
	c := h.running(h.worker())
	want := []response.Step{
		{
			Kind: response.ModelCall, State: response.Completed, Tries: 2, Attempt: 1, Output: []byte(`{"text":"a\u0000b"}`), Status: 200, RetryAfter: -1,
			Class: queue.OK, Usage: response.Usage{Input: 1, Output: 2, Cached: 3, CacheWrite: 4, Reasoning: 5},
		},
		{
			Ordinal: 1, Kind: response.ToolCall, State: response.Running, CallID: "call_1", Tool: "calculator", Plugin: "calc", Effects: "pure",
			Generation: "sha256:1", Input: []byte(`{"x":1}`), Fuel: math.MaxInt64,
		},
		{Ordinal: 2, Kind: response.ToolCall, State: response.Failed, Verdict: response.Final, Class: queue.GuestTrap, Code: "trap", Output: []byte("error")},
		{Ordinal: 10, Kind: response.ToolCall, State: response.Skipped, CallID: "\x00 any text \xff", Tool: "\x00\xfe", RetryAfter: 1500},
		{Scope: "1", Kind: response.ToolCall, State: response.Abandoned},
	}
	h.must(store.Write{Fence: c.Fence(), Steps: want})
	got := h.get(c.ID).Steps
	if len(got) != len(want) {
		h.Fatalf("got %d steps, want %d", len(got), len(want))
	}
	for i := range want {
		for _, s := range []*response.Step{&got[i], &want[i]} {
			if len(s.Input) == 0 {
				s.Input = nil
			}
			if len(s.Output) == 0 {
				s.Output = nil
			}
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			h.Errorf("step %s:\n got %+v\nwant %+v", want[i].Key(), got[i], want[i])
		}
	}
}

func testSettled(h *harness) {
	c := h.running(h.worker())
	put := func(state response.StepState, verdict response.Verdict, output string) {
		h.Helper()
		h.must(store.Write{Fence: c.Fence(), Steps: []response.Step{{Kind: response.ToolCall, State: state, Verdict: verdict, Output: []byte(output)}}})
	}
	want := func(state response.StepState, verdict response.Verdict, output string) {
		h.Helper()
		s := h.get(c.ID).Steps
		if len(s) != 1 || s[0].State != state || s[0].Verdict != verdict || string(s[0].Output) != output {
			h.Errorf("got %+v, want %s %q", s, state, output)
		}
	}
	put(response.Planned, "", "")
	put(response.Running, "", "")
	put(response.Failed, response.Unasked, "crashed before the verdict")
	want(response.Failed, response.Unasked, "crashed before the verdict")
	put(response.Running, "", "again")
	want(response.Running, "", "again")
	put(response.Failed, response.Final, "end")
	put(response.Planned, "", "revived")
	put(response.Completed, "", "changed")
	want(response.Failed, response.Final, "end")
}

func testEventsAppend(h *harness) {
	c := h.running(h.worker())
	put := func(seqs ...int64) error {
		w := store.Write{Fence: c.Fence(), Steps: []response.Step{{Ordinal: int(seqs[0]), Kind: response.ModelCall, State: response.Planned}}}
		for _, s := range seqs {
			w.Events = append(w.Events, response.Event{Seq: s, Data: []byte{byte(s)}})
		}
		return h.write(w)
	}
	if err := put(0, 1); err != nil {
		h.Fatal(err)
	}
	if err := put(1, 2); !errors.Is(err, store.ErrExists) {
		h.Errorf("duplicate: got %v, want ErrExists", err)
	}
	if err := put(2); err != nil {
		h.Error(err)
	}
	r := h.get(c.ID)
	if len(r.Events) != 3 || len(r.Steps) != 2 {
		h.Errorf("got %d events and %d steps, want 3 and 2: a refused write leaves nothing", len(r.Events), len(r.Steps))
	}
}

func testDecisions(h *harness) {
	c := h.running(h.worker())
	want := []store.Decision{
		{Step: "/0", Try: 1, Kind: "route", Question: []byte(`{"v":1}`), Answer: []byte(`{"targets":["a"]}`), Generation: "sha256:1", Fuel: 77},
		{Step: "/0", Try: 1, Kind: "retry", Question: []byte(`{"v":1}`), Answer: []byte(`{"action":"retry"}`), Generation: "builtin", Fallback: "guest_trap"},
		{Step: "/0", Try: 2, Kind: "route", Question: []byte(`{}`), Answer: []byte(`{}`), Generation: "sha256:1"},
	}
	for _, d := range want {
		h.must(store.Write{Fence: c.Fence(), Decisions: []store.Decision{d}})
	}
	if got := h.get(c.ID).Decisions; !reflect.DeepEqual(got, want) {
		h.Errorf("got %+v", got)
	}
	// Asked again for the same try, the answer that is used counts.
	again := want[2]
	again.Answer = []byte(`{"targets":["b"]}`)
	h.must(store.Write{Fence: c.Fence(), Decisions: []store.Decision{again, again}})
	if got := h.get(c.ID).Decisions; len(got) != 3 || string(got[2].Answer) != `{"targets":["b"]}` {
		h.Errorf("got %+v", got)
	}
}

func testUsage(h *harness) {
	c := h.running(h.worker())
	u := store.Usage{Scope: "s", Ordinal: 1, Try: 2, Target: "up/m", Tokens: response.Usage{Input: 1, Output: 2, Cached: 3, CacheWrite: 4, Reasoning: 5}}
	more := u
	more.Tokens.Input = 1000
	h.must(store.Write{Fence: c.Fence(), Usage: []store.Usage{u, more}})
	h.must(store.Write{Fence: c.Fence(), Usage: []store.Usage{more}})
	if got := h.get(c.ID).Usage; len(got) != 1 || got[0] != u {
		h.Errorf("got %+v, want the first one", got)
	}
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
	if v, _, _ := h.d.KVGet(h.Context(), tenant, "notes", "k"); string(v) != "3" {
		h.Errorf("KVGet: got %q, want the last put", v)
	}
}
