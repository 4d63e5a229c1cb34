package store_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

func move(f queue.Fence, to queue.State, by queue.Cause) store.Write {
	return store.Write{Fence: f, Move: &store.Move{To: to, By: by}}
}

func insert(change func(*queue.New)) store.Write {
	n := &queue.New{ID: queue.ID{1}, Tenant: "t", Model: "m", Path: "/p"}
	change(n)
	return store.Write{Insert: n}
}

func at(s queue.State) queue.Fence { return queue.Fence{ID: queue.ID{1}, Attempt: 1, State: s} }

func TestRules(t *testing.T) {
	delayed := move(running, queue.Completed, queue.ByOutcome)
	delayed.Move.Delay = time.Second
	result := move(running, queue.Waiting, queue.ByRetry)
	result.Move.Result = &store.Result{}
	code := move(running, queue.Failed, queue.ByOutcome)
	code.Move.Code = "a\x00"
	letGo := store.Write{Fence: at(queue.Canceled), LetGo: true, Usage: []store.Usage{{Target: "t"}}}
	letGoMore := letGo
	letGoMore.Events = []response.Event{{}}
	letGoRunning := letGo
	letGoRunning.Fence = running
	park := func(f queue.Fence, to queue.State, by queue.Cause, d time.Duration) store.Write {
		w := move(f, to, by)
		w.Move.Park = d
		return w
	}
	fenced := insert(func(*queue.New) {})
	fenced.Fence = running
	for _, c := range []struct {
		name string
		w    store.Write
		want error
	}{
		{"insert", insert(func(n *queue.New) { n.Body = []byte("\x00") }), nil},
		{"insert without tenant", insert(func(n *queue.New) { n.Tenant = "" }), store.ErrInvalid},
		{"NUL in tenant", insert(func(n *queue.New) { n.Tenant = "a\x00b" }), store.ErrInvalid},
		{"NUL in model", insert(func(n *queue.New) { n.Model = "a\x00b" }), store.ErrInvalid},
		{"path is not UTF-8", insert(func(n *queue.New) { n.Path = "/\xff" }), store.ErrInvalid},
		{"negative deadline", insert(func(n *queue.New) { n.DeadlineIn = -1 }), store.ErrInvalid},
		{"insert without id", insert(func(n *queue.New) { n.ID = queue.ID{} }), store.ErrInvalid},
		{"insert under another fence", fenced, store.ErrInvalid},
		{"start", move(at(queue.Claimed), queue.Processing, queue.ByStart), nil},
		{"cancel under the claim", move(running, queue.Canceled, queue.ByCancel), nil},
		{"no such move", move(at(queue.Claimed), queue.Completed, queue.ByOutcome), queue.ErrIllegalMove},
		{"out of a final state", move(at(queue.Canceled), queue.Completed, queue.ByOutcome), queue.ErrIllegalMove},
		{"claim by a write", move(at(queue.Pending), queue.Claimed, queue.ByClaim), queue.ErrIllegalMove},
		{"reap by a write", move(running, queue.Waiting, queue.ByReap), queue.ErrIllegalMove},
		{"delay of a final state", delayed, store.ErrInvalid},
		{"park with a retry", park(running, queue.Waiting, queue.ByRetry, time.Minute), nil},
		{"park with a failure", park(running, queue.Failed, queue.ByOutcome, time.Minute), nil},
		{"park with a hand-back", park(running, queue.Pending, queue.ByHandBack, time.Minute), nil},
		{"park with a success", park(running, queue.Completed, queue.ByOutcome, time.Minute), store.ErrInvalid},
		{"park with a start", park(at(queue.Claimed), queue.Processing, queue.ByStart, time.Minute), store.ErrInvalid},
		{"park for less than no time", park(running, queue.Waiting, queue.ByRetry, -1), store.ErrInvalid},
		{"result of a retry", result, store.ErrInvalid},
		{"NUL in code", code, store.ErrInvalid},
		{"let go", letGo, nil},
		{"let go and more", letGoMore, store.ErrInvalid},
		{"let go of a running one", letGoRunning, queue.ErrIllegalMove},
		{"events after the end", store.Write{Fence: at(queue.Completed), Events: []response.Event{{}}}, store.ErrInvalid},
		{"usage after the end", store.Write{Fence: at(queue.Completed), Usage: []store.Usage{{}}}, nil},
		{"gap in events", store.Write{Fence: running, Events: []response.Event{{Seq: 3}, {Seq: 5}}}, store.ErrInvalid},
		{"events of an insert", store.Write{Insert: insert(func(*queue.New) {}).Insert, Events: []response.Event{{Seq: 0}, {Seq: 1}}}, nil},
		{"first event of an insert is not 0", store.Write{Insert: insert(func(*queue.New) {}).Insert, Events: []response.Event{{Seq: 1}}}, store.ErrInvalid},
		{"negative event", store.Write{Fence: running, Events: []response.Event{{Seq: -1}}}, store.ErrInvalid},
		{"NUL in kv key", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "\x00"}}}, store.ErrInvalid},
		{"kv without key", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p"}}}, store.ErrInvalid},
		{"NUL in kv value", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Value: []byte{0}}}}, nil},
		{"checked kv", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Checked: true, Had: true, Was: []byte{0}}}}, nil},
		{"kv was what was not there", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Checked: true, Was: []byte{0}}}}, store.ErrInvalid},
		{"kv deleted", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Delete: true, Checked: true, Had: true, Was: []byte{0}}}}, nil},
		{"kv deleted and put", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Delete: true, Value: []byte{0}}}}, store.ErrInvalid},
		{"kv deleted for a time", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", Delete: true, TTL: 1}}}, store.ErrInvalid},
		{"kv for a time", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", TTL: 1}}}, nil},
		{"kv for less than no time", store.Write{Fence: running, KV: []store.KVPut{{Plugin: "p", Key: "k", TTL: -1}}}, store.ErrInvalid},
		{"NUL in usage's tenant", store.Write{Fence: running, Usage: []store.Usage{{Tenant: "\x00"}}}, store.ErrInvalid},
		{"NUL in a model's text", store.Write{Fence: running, Steps: []response.Step{{CallID: "\x00", Tool: "\x00"}}}, nil},
		{"NUL in a plugin's text", store.Write{Fence: running, Steps: []response.Step{{Detail: "\x00", Log: "\xff"}}}, nil},
		{"longest texts", store.Write{Fence: running, Steps: []response.Step{{Detail: strings.Repeat("d", response.MaxDetail), Log: strings.Repeat("l", response.MaxLog)}}}, nil},
		{"long detail", store.Write{Fence: running, Steps: []response.Step{{Detail: strings.Repeat("d", response.MaxDetail+1)}}}, store.ErrInvalid},
		{"long log", store.Write{Fence: running, Steps: []response.Step{{Log: strings.Repeat("l", response.MaxLog+1)}}}, store.ErrInvalid},
		{"NUL in scope", store.Write{Fence: running, Steps: []response.Step{{Scope: "\x00"}}}, store.ErrInvalid},
		{"fuel out of range", store.Write{Fence: running, Decisions: []store.Decision{{Fuel: math.MaxUint64}}}, store.ErrInvalid},
		{"no id", store.Write{Usage: []store.Usage{{}}}, store.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{}
			s := store.New(f, store.Options{})
			defer run(t, s)()
			if err := s.Write(t.Context(), c.w); !errors.Is(err, c.want) {
				t.Errorf("Write: got %v, want %v", err, c.want)
			}
			if reached := len(f.sizes()) > 0; reached != (c.want == nil) {
				t.Errorf("reached the driver: got %t", reached)
			}
		})
	}
}

func TestNamesAreRefusedEverywhere(t *testing.T) {
	s := store.New(&fake{}, store.Options{})
	ctx := t.Context()
	_, getErr := s.Get(ctx, "\x00", queue.ID{1}, store.Parts{})
	_, _, cancelErr := s.Cancel(ctx, "\x00", queue.ID{1}, "")
	_, _, kvErr := s.KVGet(ctx, "t", "p", "\xff")
	_, prefixErr := s.KVList(ctx, "t", "p", "\x00", "", 1)
	_, afterErr := s.KVList(ctx, "t", "p", "", "\xff", 1)
	_, _, usedErr := s.KVUsed(ctx, "\x00", "p")
	_, claimErr := s.Claim(ctx, store.ClaimRequest{Models: []string{"\x00"}, N: 1})
	_, beatErr := s.Heartbeat(ctx, store.Beat{Host: "\x00"})
	for _, c := range []struct {
		name      string
		got, want error
	}{
		{"Get", getErr, queue.ErrNotFound},
		{"Cancel", cancelErr, queue.ErrNotFound},
		{"Delete", s.Delete(ctx, "\x00", queue.ID{1}), queue.ErrNotFound},
		{"KVGet", kvErr, store.ErrInvalid},
		{"KVList prefix", prefixErr, store.ErrInvalid},
		{"KVList after", afterErr, store.ErrInvalid},
		{"KVUsed", usedErr, store.ErrInvalid},
		{"Claim", claimErr, store.ErrInvalid},
		{"Heartbeat", beatErr, store.ErrInvalid},
		{"SetLimits name", s.SetLimits(ctx, store.Limits{Lanes: []queue.Lane{{Tenant: "\x00", Model: "m"}}}), store.ErrInvalid},
		{"SetLimits weight", s.SetLimits(ctx, store.Limits{Lanes: []queue.Lane{{Tenant: "t", Model: "m", Weight: math.NaN()}}}), store.ErrInvalid},
		{"SetLimits cap", s.SetLimits(ctx, store.Limits{Lanes: []queue.Lane{{Tenant: "t", Model: "m", Cap: -1}}}), store.ErrInvalid},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestBounds: what lies in the bounds of a range begins with its prefix, or
// does not come after After.
func TestBounds(t *testing.T) {
	keys := []string{"a", "a%", "a\x7f", "b", "¿", "À", "\uD7FF", "\uD7FFx", "\uE000", "\U0010FFFF", "\U0010FFFFz", "z\U0010FFFF", "z\U0010FFFFa", "{"}
	for _, prefix := range append(keys, "") {
		for _, after := range append(keys, "") {
			r := store.KVRange{Prefix: prefix, After: after}
			least, end := r.Bounds()
			if !utf8.ValidString(least) || !utf8.ValidString(end) {
				t.Errorf("%q after %q: bounds %q and %q are no text", prefix, after, least, end)
			}
			for _, k := range keys {
				want := strings.HasPrefix(k, prefix) && k > after
				if got := k >= least && k != after && (end == "" || k < end); got != want {
					t.Errorf("%q, prefix %q after %q: got %t, want %t", k, prefix, after, got, want)
				}
			}
		}
	}
}

func TestListOfNothing(t *testing.T) {
	s := store.New(&fake{}, store.Options{}) // its driver has no KVList
	if keys, err := s.KVList(t.Context(), "t", "p", "", "", 0); err != nil || keys != nil {
		t.Errorf("KVList: got %q, %v, want none", keys, err)
	}
}
