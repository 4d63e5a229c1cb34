package storetest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var stepCases = []testCase{
	{"Steps", testSteps},
	{"StepsAreReplaced", testStepsReplaced},
	{"SettledStepsNeverChange", testSettled},
	{"NoStepStaysOpenAtTheEnd", testNoOpenStep},
	{"EventsAreAppended", testEventsAppend},
	{"Decisions", testDecisions},
	{"UsageIsAppendOnly", testUsage},
	{"UsageOfADeletedRequest", testUsageGone},
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
			Generation: "sha256:1", Input: []byte(`{"x":1}`), Fuel: math.MaxInt64, EffectStarted: true,
			Used:   response.Used{WallMS: 1, Memory: math.MaxUint64, Output: 2, Log: 3, HostCalls: 4},
			Detail: "wasm trap\x00 in \xff", Log: strings.Repeat("l\x00\xfe", response.MaxLog/3),
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

// testStepsReplaced: an open step becomes what the last write says, in all that
// a try leaves behind.
func testStepsReplaced(h *harness) {
	c := h.running(h.worker())
	first := response.Step{
		Kind: response.ToolCall, State: response.Running, Tries: 1, Attempt: 1, Effects: "idempotent",
		EffectStarted: true, Detail: "d", Log: "l", Fuel: 1, Used: response.Used{WallMS: 1},
	}
	second := response.Step{Kind: response.ToolCall, State: response.Running, Tries: 2, Attempt: 1, Effects: "idempotent"}
	for _, want := range []response.Step{second, first, second} {
		h.must(store.Write{Fence: c.Fence(), Steps: []response.Step{want}})
		if got := h.get(c.ID).Steps; len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			h.Errorf("got %+v, want %+v", got, want)
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
	for _, seqs := range [][]int64{{3}, {4, 5}} {
		if err := put(seqs...); !errors.Is(err, store.ErrInvalid) {
			h.Errorf("gap before %d: got %v, want ErrInvalid", seqs[0], err)
		}
	}
	if err := put(2); err != nil {
		h.Error(err)
	}
	for _, w := range []store.Write{
		{Fence: h.running(h.worker()).Fence(), Events: []response.Event{{Seq: 1}}},
		{Insert: request(), Events: []response.Event{{Seq: 1}}},
	} {
		if err := h.write(w); !errors.Is(err, store.ErrInvalid) {
			h.Errorf("first event 1: got %v, want ErrInvalid", err)
		}
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
	u := store.Usage{Scope: "s", Ordinal: 1, Try: 2, Target: "up/m", Tokens: response.Usage{Input: 1, Output: 2, Cached: 3, CacheWrite: 4, Reasoning: 5}, Tenant: tenant, Model: model}
	more := u
	more.Tokens.Input = 1000
	h.must(store.Write{Fence: c.Fence(), Usage: []store.Usage{u, more}})
	h.must(store.Write{Fence: c.Fence(), Usage: []store.Usage{more}})
	if got := h.get(c.ID).Usage; len(got) != 1 || got[0] != u {
		h.Errorf("got %+v, want the first one", got)
	}
}

// testUsageGone: usage of a request without a row names whom it is of.
func testUsageGone(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	usage := store.Usage{Ordinal: 1, Target: "t", Tokens: response.Usage{Input: 1}, Tenant: "said", Model: "m"}
	refused := request(by(w))
	if err := h.write(store.Write{Insert: refused, Usage: []store.Usage{{Target: "t"}}}); !errors.Is(err, queue.ErrAtCap) {
		h.Fatalf("at the cap: got %v, want ErrAtCap", err)
	}
	h.must(store.Write{Fence: c.Fence(), Usage: []store.Usage{usage}})
	h.must(complete(c.Fence()))
	if err := h.d.Delete(h.Context(), "", c.ID); err != nil {
		h.Fatal(err)
	}
	usage.Ordinal = 2
	h.lost(store.Write{Fence: c.Fence(), Usage: []store.Usage{usage}})
	for _, want := range []struct {
		id    queue.ID
		names []string
	}{
		{c.ID, []string{tenant, model, "said", "m"}},
		{refused.ID, []string{tenant, model}},
	} {
		h.enqueue(of("other", model), func(n *queue.New) { n.ID = want.id }) // so that it can be read
		var names []string
		for _, u := range h.get(want.id).Usage {
			names = append(names, u.Tenant, u.Model)
		}
		if fmt.Sprint(names) != fmt.Sprint(want.names) {
			h.Errorf("usage: got %v, want %v", names, want.names)
		}
	}
}

// testNoOpenStep checks that a request that ends otherwise than by its plan
// leaves no step that looks as if it ran.
func testNoOpenStep(h *harness) {
	ends := map[string]func(c queue.Claim){
		"canceled": func(c queue.Claim) {
			h.cancel(c.ID)
			h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Canceled}, LetGo: true})
		},
		"canceled while it waits": func(c queue.Claim) {
			h.must(store.Write{Fence: c.Fence(), Move: &store.Move{To: queue.Waiting, By: queue.ByRetry, Delay: time.Hour}})
			h.cancel(c.ID)
		},
		"reaped once too often": func(c queue.Claim) {
			h.kill(h.get(c.ID).Worker)
			h.reap(0)
		},
		"failed": func(c queue.Claim) {
			h.must(store.Write{Fence: c.Fence(), Move: &store.Move{To: queue.Failed, By: queue.ByOutcome, Class: queue.ClassDeadline}})
		},
	}
	for name, end := range ends {
		c := h.running(h.worker(), func(n *queue.New) { n.Store = true })
		h.must(store.Write{Fence: c.Fence(), Steps: []response.Step{
			{Ordinal: 0, Kind: response.ModelCall, State: response.Completed},
			{Ordinal: 1, Kind: response.ToolCall, State: response.Running},
			{Ordinal: 2, Kind: response.ToolCall, State: response.Planned},
		}})
		end(c)
		var got []response.StepState
		for _, s := range h.get(c.ID).Steps {
			got = append(got, s.State)
		}
		if want := []response.StepState{response.Completed, response.Abandoned, response.Skipped}; !reflect.DeepEqual(got, want) {
			h.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
