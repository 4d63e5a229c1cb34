package loop_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// scripted is an upstream whose targets fail as told.
type scripted struct {
	fails map[string]*upstream.Error // by target; nil: it answers
	calls []upstream.Call
	asked []string // for candidates and availability
	open  bool
	wait  time.Duration
}

func (s *scripted) Candidates(model string) []abi.Candidate {
	s.asked = append(s.asked, model)
	var all []abi.Candidate
	for _, target := range []string{"a/" + model, "b/" + model, "c/" + model} {
		if _, ok := s.fails[target]; ok {
			all = append(all, abi.Candidate{Target: target, Weight: 1, Healthy: true})
		}
	}
	return all
}

func said(upstream.Kind) (loop.Said, error) { return loop.Said{Body: []byte("{}")}, nil }

func (s *scripted) Kind(string) upstream.Kind { return upstream.Chat }

func (s *scripted) Available(model string) (open bool, wait time.Duration) {
	s.asked = append(s.asked, model)
	return s.open, s.wait
}

func (s *scripted) Do(_ context.Context, c upstream.Call) (upstream.Reply, error) {
	s.calls = append(s.calls, c)
	if e := s.fails[c.Target]; e != nil {
		return upstream.Reply{}, e
	}
	return upstream.Reply{Status: 200, Body: []byte("{}")}, nil
}

func noSlot(wait time.Duration) *upstream.Error {
	return &upstream.Error{Class: queue.RateLimited, Status: 429, RetryAfter: wait, NoCall: true}
}

func TestCallerWalksTheTargets(t *testing.T) {
	broken := &upstream.Error{Class: queue.UpstreamStatus, Status: 503, RetryAfter: -1}
	limited := &upstream.Error{Class: queue.RateLimited, Status: 429, RetryAfter: 2 * time.Second}
	refused := &upstream.Error{Class: queue.UpstreamStatus, Status: 400, RetryAfter: -1}
	for _, tt := range []struct {
		name   string
		fails  map[string]*upstream.Error
		calls  string
		target string
		class  queue.Class // "": it is served
		wait   time.Duration
		called bool
		tried  int
		fare   loop.Fare
		counts policy.BudgetCounts
	}{
		{
			name: "first serves", fails: map[string]*upstream.Error{"a/m": nil, "b/m": nil}, calls: "a/m", target: "a/m", called: true,
			fare: loop.First, counts: policy.BudgetCounts{Deposits: 1},
		},
		{
			name: "no slot at the first", fails: map[string]*upstream.Error{"a/m": noSlot(time.Second), "b/m": nil},
			calls: "a/m b/m", target: "b/m", called: true, fare: loop.First, counts: policy.BudgetCounts{Deposits: 1},
		},
		{
			name: "no slot anywhere", fails: map[string]*upstream.Error{"a/m": noSlot(3 * time.Second), "b/m": noSlot(time.Second)},
			calls: "a/m b/m", target: "b/m", class: queue.RateLimited, wait: time.Second, fare: loop.First,
		},
		{
			name: "no slot anywhere, again", fails: map[string]*upstream.Error{"a/m": noSlot(3 * time.Second)},
			calls: "a/m", target: "a/m", class: queue.RateLimited, wait: 3 * time.Second, fare: loop.Paid, counts: policy.BudgetCounts{Refunds: 1},
		},
		{
			name: "broken, then no slot", fails: map[string]*upstream.Error{"a/m": broken, "b/m": noSlot(time.Second)},
			calls: "a/m b/m", target: "a/m", class: queue.UpstreamStatus, wait: -1, called: true, tried: 1, fare: loop.First, counts: policy.BudgetCounts{Deposits: 1},
		},
		{
			name: "no slot, then broken", fails: map[string]*upstream.Error{"a/m": noSlot(time.Second), "b/m": broken},
			calls: "a/m b/m", target: "b/m", class: queue.UpstreamStatus, wait: -1, called: true, tried: 1, fare: loop.Paid,
		},
		{
			name: "limited, then broken", fails: map[string]*upstream.Error{"a/m": limited, "b/m": broken},
			calls: "a/m b/m", target: "a/m", class: queue.RateLimited, wait: 2 * time.Second, called: true, tried: 2,
		},
		{
			name: "limited, then refused", fails: map[string]*upstream.Error{"a/m": limited, "b/m": refused},
			calls: "a/m b/m", target: "b/m", class: queue.UpstreamStatus, wait: -1, called: true, tried: 2,
		},
		{
			name: "no target likes it", fails: map[string]*upstream.Error{"a/m": refused, "b/m": nil},
			calls: "a/m", target: "a/m", class: queue.UpstreamStatus, wait: -1, called: true, tried: 1,
		},
		{name: "no targets", fails: nil, class: queue.UpstreamNetwork, wait: -1, fare: loop.First},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, b := &scripted{fails: tt.fails}, policy.NewBudget(policy.BudgetOptions{})
			c := &loop.Caller{Policy: &fakePolicy{}, Upstream: up, Budget: b}
			res := c.Do(t.Context(), loop.UpstreamCall{Info: abi.RequestInfo{Model: "m"}, Realtime: true, Fare: tt.fare, Say: said})
			var calls []string
			for _, c := range up.calls {
				calls = append(calls, c.Target)
				if c.Model != "m" || !c.Realtime {
					t.Errorf("called as %+v", c)
				}
			}
			if got := strings.Join(calls, " "); got != tt.calls {
				t.Errorf("asked %q, want %q", got, tt.calls)
			}
			if f := res.Failure; (f != nil) != (tt.class != "") || f != nil && (f.Class != tt.class || f.RetryAfter != tt.wait) {
				t.Errorf("failure %+v, want %q, to come back in %v", f, tt.class, tt.wait)
			}
			if res.Called != tt.called || res.Target != tt.target || len(res.Tried) != tt.tried {
				t.Errorf("called %v, target %q, tried %v; want %v, %q, %d", res.Called, res.Target, res.Tried, tt.called, tt.target, tt.tried)
			}
			got := b.Counts()["m"]
			if got.Left = 0; got != tt.counts {
				t.Errorf("budget %+v, want %+v", got, tt.counts)
			}
			if no := tt.class == queue.RateLimited && !tt.called; res.NoRoom(true, 1) != no || res.NoRoom(false, 1) || res.NoRoom(true, 2) {
				t.Errorf("no room: %v for realtime, %v for others, %v later; want %v, false, false", res.NoRoom(true, 1), res.NoRoom(false, 1), res.NoRoom(true, 2), no)
			}
		})
	}
}

// A rejected retry makes no call, so what paid for it is there again.
func TestRejectedRetryIsRefunded(t *testing.T) {
	b := policy.NewBudget(policy.BudgetOptions{})
	c := &loop.Caller{Policy: &fakePolicy{reject: &abi.Reject{Status: 503}}, Upstream: &scripted{}, Budget: b}
	c.Do(t.Context(), loop.UpstreamCall{Info: abi.RequestInfo{Model: "m"}, Fare: loop.First, Say: said})
	c.Do(t.Context(), loop.UpstreamCall{Info: abi.RequestInfo{Model: "m"}, Fare: loop.Paid, Say: said})
	if n := b.Counts()["m"]; n.Refunds != 1 || n.Deposits != 0 {
		t.Errorf("got %+v, want one refund", n)
	}
}

func TestPark(t *testing.T) {
	for _, tt := range []struct {
		name      string
		open      bool
		wait      time.Duration
		escalated string
		want      time.Duration
	}{
		{"a target is open", true, 0, "", 0},
		{"none is", false, 40 * time.Second, "", 40 * time.Second},
		{"for a moment", false, time.Millisecond, "", time.Second},
		{"for long", false, time.Hour, "", 5 * time.Minute},
		{"there are none", false, 0, "", 0},
		{"its lane has work for another model", false, time.Minute, "m2", 0},
	} {
		up := &scripted{open: tt.open, wait: tt.wait}
		c := &loop.Caller{Upstream: up}
		if got := c.Park(queue.Claim{Model: "m", Escalated: tt.escalated}); got != tt.want {
			t.Errorf("%s: parked for %v, want %v", tt.name, got, tt.want)
		}
		c.Escalates = func(model string) bool { return model == "m" }
		if got := c.Park(queue.Claim{Model: "m"}); got != 0 {
			t.Errorf("%s: a lane that may go to another model is parked for %v", tt.name, got)
		}
	}
}
