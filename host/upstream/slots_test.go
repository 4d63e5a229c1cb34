package upstream_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

// slots lets n calls run at once.
type slots struct {
	mu       sync.Mutex
	free     int
	asked    []string
	released int
	wait     time.Duration // before an answer
	deaf     bool          // it waits even when ctx ends
	refuse   error
}

func (s *slots) Acquire(ctx context.Context, target string, realtime bool) (func(), error) {
	s.mu.Lock()
	kind := " queued"
	if realtime {
		kind = " realtime"
	}
	s.asked = append(s.asked, target+kind)
	s.mu.Unlock()
	if s.deaf {
		<-time.After(s.wait)
	} else if err := wait(ctx, s.wait); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.free--
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free++
		s.released++
	}, nil
}

func (s *slots) now() (free, released int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free, s.released
}

// full is a refusal that says when to come back.
type full struct{ wait time.Duration }

func (f full) Error() string             { return "full" }
func (f full) RetryAfter() time.Duration { return f.wait }

// TestSlotIsHeldForOneCall checks that a slot is taken before the call begins
// and given back when its body has ended, however it ends, once.
func TestSlotIsHeldForOneCall(t *testing.T) {
	const ev, done = "data: {\"choices\":[]}\n\n", "data: [DONE]\n\n"
	for name, r := range map[string]reply{
		"good":        {header: sse, parts: []part{{time.Second, ev}, {time.Second, ev + done}}},
		"cut":         {header: sse, parts: []part{{time.Second, ev}}, end: errors.New("reset")},
		"late":        {delay: time.Hour},
		"silent":      {header: sse, open: true, parts: []part{{time.Second, ev}}},
		"refused":     {status: 429},
		"not taken":   {header: sse, parts: []part{{0, "data: {\"choices\":[\"stop\"]}\n\n"}}, open: true},
		"it panics":   {header: sse, parts: []part{{0, "data: {\"choices\":[\"panic\"]}\n\n"}}, open: true},
		"it is ended": {header: sse, parts: []part{{0, "data: {\"choices\":[\"cancel\"]}\n\n"}}, open: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slots{free: 1}
				c := config("http://host/v1")
				c.Slots = s
				inCall := 0
				held := func() {
					if free, _ := s.now(); free != 0 {
						t.Errorf("%d slots are free amid the call", free)
					}
					inCall++
				}
				c.HTTP = fake(func(*call) reply { held(); return r })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				func() {
					defer func() { _ = recover() }()
					_, _ = client(t, c).Do(ctx, upstream.Call{
						Target: "up/real", Model: "m", Path: "/x", Body: []byte(streamBody), Realtime: name == "good",
						OnData: func(data []byte) error {
							held()
							switch text := string(data); {
							case strings.Contains(text, "stop"):
								return errors.New("enough")
							case strings.Contains(text, "panic"):
								panic("bug")
							case strings.Contains(text, "cancel"):
								cancel()
							}
							return nil
						},
					})
				}()
				if free, released := s.now(); free != 1 || released != 1 || inCall == 0 {
					t.Errorf("after it %d are free, released %d times; want 1, once", free, released)
				}
				want := "up/real queued"
				if name == "good" {
					want = "up/real realtime"
				}
				if got := strings.Join(s.asked, ", "); got != want {
					t.Errorf("asked for %s, want %s", got, want)
				}
			})
		})
	}
}

// TestNoSlot checks what a call ends with that gets no slot: nothing was called,
// the target's health is as it was, and its caller knows when to come back.
func TestNoSlot(t *testing.T) {
	gone := errors.New("client went away")
	tests := []struct {
		name    string
		slots   *slots
		cancel  time.Duration // the caller's context ends then; 0: never
		class   queue.Class
		noCall  bool
		after   time.Duration
		retryIn time.Duration
		cause   error
	}{
		{name: "refused", slots: &slots{refuse: full{3 * time.Second}, wait: time.Second}, class: queue.RateLimited, noCall: true, after: time.Second, retryIn: 3 * time.Second, cause: full{3 * time.Second}},
		{name: "refused for long", slots: &slots{refuse: full{48 * time.Hour}}, class: queue.RateLimited, noCall: true, retryIn: upstream.MaxRetryAfter},
		{name: "refused without a word", slots: &slots{refuse: errors.New("no")}, class: queue.RateLimited, noCall: true, retryIn: -1},
		{name: "not within the call's time", slots: &slots{free: 1, wait: time.Hour}, class: queue.RateLimited, noCall: true, after: 10 * time.Second, retryIn: -1},
		{name: "too late", slots: &slots{free: 1, wait: 11 * time.Second, deaf: true}, class: queue.RateLimited, noCall: true, after: 11 * time.Second, retryIn: -1},
		{name: "its caller ends", slots: &slots{free: 1, wait: time.Hour}, cancel: time.Second, class: queue.ClassCanceled, after: time.Second, retryIn: -1, cause: gone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := config("http://host/v1")
				c.Slots = tt.slots
				c.HTTP = fake(func(*call) reply { t.Error("a call was made"); return reply{body: answer} })
				cl := client(t, c)
				was := cl.Candidates("m")[0]
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cancel > 0 {
					defer time.AfterFunc(tt.cancel, func() { cancel(gone) }).Stop()
				}
				start := time.Now()
				_, err := cl.Do(ctx, upstream.Call{Target: "up/real", Model: "m", Path: "/x", Body: []byte(plainBody), Timeout: 10 * time.Second})
				e := typed(t, err)
				if e == nil || e.Class != tt.class || e.NoCall != tt.noCall || e.Begun || tt.noCall != (e.Status == 429) {
					t.Fatalf("got %+v; want %s, no call %v", e, tt.class, tt.noCall)
				}
				if took := time.Since(start); took != tt.after || e.RetryAfter != tt.retryIn || tt.cause != nil && !errors.Is(err, tt.cause) {
					t.Errorf("after %v, to come back in %v, cause %v; want %v, %v, %v", took, e.RetryAfter, errors.Unwrap(err), tt.after, tt.retryIn, tt.cause)
				}
				if now := cl.Candidates("m")[0]; now != was {
					t.Errorf("health: got %+v, want as it was", now)
				}
				if free, released := tt.slots.now(); tt.name == "too late" && (free != 1 || released != 1) {
					t.Errorf("a slot that came too late was kept: %d free", free)
				}
			})
		})
	}
}

// The wait for a slot is part of the call's time, but not of its first event's.
func TestSlotCountsTowardTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("http://host/v1")
		c.Slots = &slots{free: 1, wait: 6 * time.Second}
		c.FirstEvent = 5 * time.Second
		c.HTTP = fake(func(*call) reply {
			return reply{header: sse, open: true, parts: []part{{4 * time.Second, "data: {}\n\n"}}}
		})
		start := time.Now()
		_, err := client(t, c).Do(t.Context(), upstream.Call{
			Target: "up/real", Path: "/x", Body: []byte(streamBody), Timeout: 20 * time.Second, OnData: func([]byte) error { return nil },
		})
		if e := typed(t, err); e == nil || e.Class != queue.UpstreamTimeout || e.Reason != "took too long" || !e.Begun || time.Since(start) != 20*time.Second {
			t.Errorf("got %v after %v; want it to take too long after 20s", err, time.Since(start))
		}
	})
}

func TestCooldowns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := map[string]reply{}
		c := config("http://host/v1")
		c.Upstreams = append(c.Upstreams, upstream.Upstream{Name: "b", BaseURL: "http://b/v1", APIKey: "b"})
		c.Models[0].Targets = append(c.Models[0].Targets, upstream.Target{Upstream: "b", Model: "real"})
		c.HTTP = fake(func(c *call) reply { return next[c.header.Get("Authorization")] })
		cl := client(t, c)
		do := func(target string, r reply) {
			next = map[string]reply{"Bearer sk-secret": r, "Bearer b": r}
			_, _ = cl.Do(t.Context(), upstream.Call{Target: target, Model: "m", Path: "/x", Body: []byte(plainBody)})
		}
		check := func(when string, open bool, wait time.Duration, own map[string]time.Duration) {
			t.Helper()
			if o, w := cl.Available("m"); o != open || w != wait {
				t.Errorf("%s: got %v, %v; want %v, %v", when, o, w, open, wait)
			}
			got := cl.Cooldowns()
			if len(got) != len(own) {
				t.Errorf("%s: got own cooldowns %v, want %v", when, got, own)
			}
			for target, d := range own {
				if got[target] != d {
					t.Errorf("%s: got own cooldowns %v, want %v", when, got, own)
				}
			}
		}
		check("at first", true, 0, nil)
		do("up/real", reply{status: 429, header: map[string]string{"Retry-After": "60"}})
		check("one is limited", true, 0, map[string]time.Duration{"up/real": time.Minute})
		do("b/real", reply{status: 503, header: map[string]string{"Retry-After": "20"}})
		check("the other is broken", false, 20*time.Second, map[string]time.Duration{"up/real": time.Minute})
		cl.Cool("b/real", 5*time.Second)
		cl.Cool("b/real", -time.Second)
		cl.Cool("nobody/knows", time.Second)
		check("told of less", false, 20*time.Second, map[string]time.Duration{"up/real": time.Minute})
		cl.Cool("b/real", 24*time.Hour)
		check("told of more", false, time.Minute, map[string]time.Duration{"up/real": time.Minute})
		<-time.After(time.Minute)
		check("a minute later", true, 0, nil)
		if left := time.Duration(cl.Candidates("m")[1].CooldownMS) * time.Millisecond; left != 59*time.Minute {
			t.Errorf("what others say lasts for %v more, want 59m: an hour at most", left)
		}
		for _, answer := range []reply{{status: 429}, {status: 429, header: map[string]string{"Retry-After": "0"}}} {
			do("up/real", reply{body: `{}`})
			do("up/real", answer)
			check("its own guess", false, time.Second, nil)
			<-time.After(time.Minute)
		}
		if open, wait := cl.Available("none"); open || wait != 0 {
			t.Errorf("a model without targets: got %v, %v", open, wait)
		}
	})
}

// A rate limit that says for how long parks its target: nothing is called until
// then, by hosts that were only told of it neither, and no longer. The limit that
// another call is told meanwhile takes effect on those that wait for its slot.
func TestRateLimitParksTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, answers := 0, reply{}
		c := config("http://host/v1")
		s := &slots{free: 1}
		c.Slots = s
		c.HTTP = fake(func(*call) reply { calls++; return answers })
		cl := client(t, c)
		parked := func(when string, left time.Duration) {
			t.Helper()
			calls = 0
			was, asked := cl.Candidates("m")[0].ErrorRate, len(s.asked)
			e := do(t, cl, plainBody, nil)
			if e == nil || !e.NoCall || e.Class != queue.RateLimited || e.Status != 429 || e.RetryAfter != left || calls != 0 {
				t.Errorf("%s: got %+v and %d calls; want none, to come back in %v", when, e, calls, left)
			}
			if now := cl.Candidates("m")[0].ErrorRate; now > was {
				t.Errorf("%s: the error rate is %v, was %v", when, now, was)
			}
			if free, _ := s.now(); free != 1 || s.wait == 0 && len(s.asked) != asked {
				t.Errorf("%s: %d slots are free, %d asked for; want 1, none", when, free, len(s.asked)-asked)
			}
		}
		open := func(when string) {
			t.Helper()
			calls, answers = 0, reply{body: `{}`}
			if e := do(t, cl, plainBody, nil); e != nil || calls != 1 {
				t.Errorf("%s: got %v, want a call", when, e)
			}
		}
		answers = reply{status: 429, header: map[string]string{"Retry-After": "1200"}}
		_ = do(t, cl, plainBody, nil)
		parked("at once", 20*time.Minute)
		<-time.After(20*time.Minute - time.Millisecond)
		parked("at the last moment", time.Millisecond)
		<-time.After(time.Millisecond)
		open("when it is over")
		cl.Cool("up/real", time.Minute)
		parked("told by another host", time.Minute)
		<-time.After(time.Minute)
		for _, answers = range []reply{{status: 429}, {status: 503, header: map[string]string{"Retry-After": "60"}}} {
			_ = do(t, cl, plainBody, nil)
			open("what is no rate limit that says for how long")
		}
		s.wait = time.Second // for a slot
		defer time.AfterFunc(time.Second/2, func() { cl.Cool("up/real", time.Minute) }).Stop()
		parked("while it waited for a slot", time.Minute-time.Second/2)
	})
}

// Calls that fail at the same time are one reason to wait longer, not many.
func TestCooldownGrowsByWaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("http://host/v1")
		c.HTTP = fake(func(*call) reply { return reply{status: 429, delay: time.Second} })
		cl := client(t, c)
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					<-time.After(time.Duration(i) * time.Millisecond)
					_ = do(t, cl, plainBody, nil)
				})
			}
			wg.Wait()
			if _, wait := cl.Available("m"); wait != want {
				t.Errorf("got %v, want %v", wait, want)
			}
			<-time.After(time.Minute)
		}
	})
}
