package store_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func (f *fake) Claim(_ context.Context, c store.ClaimRequest) ([]queue.Claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims = append(f.claims, c)
	return []queue.Claim{{}}, nil
}

func (f *fake) Heartbeat(_ context.Context, b store.Beat) (store.Pulse, error) {
	f.beats = append(f.beats, b)
	return store.Pulse{}, nil
}

func (f *fake) Sweep(context.Context, store.SweepRequest) (store.Swept, error) {
	return store.Swept{}, nil
}

func (f *fake) SetLimits(_ context.Context, l store.Limits) error {
	f.limits = append(f.limits, l)
	return nil
}

func TestOneClaimInFiveIsUrgent(t *testing.T) {
	for _, c := range []struct {
		n    int
		want []int // urgent, of claim after claim
	}{
		{1, []int{0, 0, 0, 0, 1, 0, 0, 0, 0, 1}},
		{2, []int{0, 0, 1, 0, 1, 0}},
		{3, []int{0, 1, 0, 1, 1}},
		{5, []int{1, 1, 1}},
		{12, []int{2, 2, 3, 2, 3}},
	} {
		f := &fake{}
		s := store.New(f, store.Options{})
		for i, want := range c.want {
			if _, err := s.Claim(t.Context(), store.ClaimRequest{Models: []string{"m"}, N: c.n, Urgent: 99}); err != nil {
				t.Fatal(err)
			}
			if got := f.claims[i]; got.Urgent != want || got.Window != 10*time.Minute {
				t.Errorf("claim %d of %d: got %d urgent within %s, want %d within 10m", i, c.n, got.Urgent, got.Window, want)
			}
		}
	}
}

func TestUrgentShareIsExactUnderConcurrency(t *testing.T) {
	f := &fake{}
	s := store.New(f, store.Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 500 {
				_, _ = s.Claim(t.Context(), store.ClaimRequest{Models: []string{"m"}, N: 1 + (i+k)%4})
			}
		})
	}
	wg.Wait()
	var asked, urgent int
	for _, c := range f.claims {
		asked, urgent = asked+c.N, urgent+c.Urgent
		if c.Urgent < 0 || c.Urgent > c.N {
			t.Errorf("got %d urgent of %d", c.Urgent, c.N)
		}
	}
	if urgent != asked/5 {
		t.Errorf("got %d urgent of %d, want %d", urgent, asked, asked/5)
	}
}

// TestClaimOfNothing: what asks for nothing reaches no database and spends no
// urgent turn.
func TestClaimOfNothing(t *testing.T) {
	f := &fake{}
	s := store.New(f, store.Options{})
	for _, c := range []store.ClaimRequest{{Models: []string{"m"}}, {Models: []string{"m"}, N: -4}, {N: 4}} {
		if got, err := s.Claim(t.Context(), c); err != nil || got != nil {
			t.Errorf("Claim(%+v): got %v, %v", c, got, err)
		}
	}
	if len(f.claims) != 0 {
		t.Errorf("the driver got %+v", f.claims)
	}
	models := []string{"b", "a", "b"}
	if _, err := s.Claim(t.Context(), store.ClaimRequest{Models: models, N: 5}); err != nil {
		t.Fatal(err)
	}
	if got := f.claims[0]; got.Urgent != 1 || !slices.Equal(got.Models, []string{"a", "b"}) || !slices.Equal(models, []string{"b", "a", "b"}) {
		t.Errorf("the driver got %+v, the caller has %v", got, models)
	}
}

func TestClaimRules(t *testing.T) {
	models := []string{"a", "b"}
	to := func(model string) map[string]queue.Escalation {
		return map[string]queue.Escalation{"a": {To: model, Within: time.Minute}}
	}
	for _, c := range []struct {
		name string
		c    store.ClaimRequest
		want error
	}{
		{"escalates", store.ClaimRequest{Escalate: to("b")}, nil},
		{"escalates to a model not asked for", store.ClaimRequest{Escalate: to("c")}, nil},
		{"escalates to itself", store.ClaimRequest{Escalate: to("a")}, store.ErrInvalid},
		{"escalates to nothing", store.ClaimRequest{Escalate: to("")}, store.ErrInvalid},
		{"escalates to no name", store.ClaimRequest{Escalate: to("\x00")}, store.ErrInvalid},
		{"escalates within less than no time", store.ClaimRequest{Escalate: map[string]queue.Escalation{"a": {To: "b", Within: -1}}}, store.ErrInvalid},
		{"only escalated", store.ClaimRequest{Escalate: to("b"), OnlyEscalate: []string{"a"}}, nil},
		{"only escalated, to nothing", store.ClaimRequest{OnlyEscalate: []string{"a"}}, store.ErrInvalid},
		{"only escalated, not asked for", store.ClaimRequest{Escalate: map[string]queue.Escalation{"c": {To: "a"}}, OnlyEscalate: []string{"c"}}, store.ErrInvalid},
		{"negative window", store.ClaimRequest{Window: -1}, store.ErrInvalid},
		{"a window of one's own", store.ClaimRequest{Window: time.Hour}, nil},
	} {
		f := &fake{}
		c.c.Models, c.c.N = models, 1
		if _, err := store.New(f, store.Options{}).Claim(t.Context(), c.c); !errors.Is(err, c.want) || (len(f.claims) > 0) != (c.want == nil) {
			t.Errorf("%s: got %v and %d claims of the driver, want %v", c.name, err, len(f.claims), c.want)
		}
	}
}

func TestBeatRules(t *testing.T) {
	good := store.TargetUse{Target: "up/m", Limit: 4, Keep: 5, Want: 9, Cooldown: time.Second} // a limit may be lowered below what is in use
	with := func(f func(*store.TargetUse)) []store.TargetUse {
		u := good
		f(&u)
		return []store.TargetUse{u}
	}
	for _, c := range []struct {
		name string
		uses []store.TargetUse
		want error
	}{
		{"good", []store.TargetUse{good}, nil},
		{"no limit", with(func(u *store.TargetUse) { u.Limit = 0 }), nil},
		{"no name", with(func(u *store.TargetUse) { u.Target = "" }), store.ErrInvalid},
		{"NUL in name", with(func(u *store.TargetUse) { u.Target = "\x00" }), store.ErrInvalid},
		{"negative limit", with(func(u *store.TargetUse) { u.Limit = -1 }), store.ErrInvalid},
		{"negative keep", with(func(u *store.TargetUse) { u.Keep = -1 }), store.ErrInvalid},
		{"negative want", with(func(u *store.TargetUse) { u.Want = -1 }), store.ErrInvalid},
		{"want out of range", with(func(u *store.TargetUse) { u.Want = math.MaxInt32 + 1 }), store.ErrInvalid},
		{"negative cooldown", with(func(u *store.TargetUse) { u.Cooldown = -1 }), store.ErrInvalid},
		{"twice", []store.TargetUse{good, good}, store.ErrInvalid},
	} {
		f := &fake{}
		if _, err := store.New(f, store.Options{}).Heartbeat(t.Context(), store.Beat{Targets: c.uses}); !errors.Is(err, c.want) || (len(f.beats) > 0) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	f := &fake{}
	uses := with(func(u *store.TargetUse) { u.Cooldown = 100 * time.Hour })
	if _, err := store.New(f, store.Options{}).Heartbeat(t.Context(), store.Beat{Targets: uses}); err != nil || f.beats[0].Targets[0].Cooldown != store.MaxPark || uses[0].Cooldown != 100*time.Hour {
		t.Errorf("a long cooldown: the driver got %+v, the caller has %+v, %v", f.beats, uses, err)
	}
}

func TestSweepRules(t *testing.T) {
	for _, c := range []struct {
		name string
		r    store.SweepRequest
		want error
	}{
		{"good", store.SweepRequest{Keep: 1, Grace: 1, MaxReaps: 1}, nil},
		{"negative keep", store.SweepRequest{Keep: -1}, store.ErrInvalid},
		{"negative grace", store.SweepRequest{Grace: -1}, store.ErrInvalid},
		{"negative max reaps", store.SweepRequest{MaxReaps: -1}, store.ErrInvalid},
	} {
		if _, err := store.New(&fake{}, store.Options{}).Sweep(t.Context(), c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestLimitRules(t *testing.T) {
	lane := queue.Lane{Tenant: "t", Model: "m", Weight: 2, Cap: 4, Reserve: queue.Reserve{Realtime: 2, Queued: 1}}
	gate := queue.Gate{Tenant: "t", Cap: 4, Reserve: queue.Reserve{Realtime: 1, Queued: 2}}
	lanes := func(f func(*queue.Lane)) store.Limits {
		l := lane
		f(&l)
		return store.Limits{Lanes: []queue.Lane{l}}
	}
	gates := func(f func(*queue.Gate)) store.Limits {
		g := gate
		f(&g)
		return store.Limits{Gates: []queue.Gate{g}}
	}
	for _, c := range []struct {
		name string
		l    store.Limits
		want error
	}{
		{"good", store.Limits{Lanes: []queue.Lane{lane}, Gates: []queue.Gate{gate}}, nil},
		{"no weight", lanes(func(l *queue.Lane) { l.Weight = 0 }), nil},
		{"weight too small", lanes(func(l *queue.Lane) { l.Weight = 1e-300 }), store.ErrInvalid},
		{"weight too large", lanes(func(l *queue.Lane) { l.Weight = 1e300 }), store.ErrInvalid},
		{"negative weight", lanes(func(l *queue.Lane) { l.Weight = -1 }), store.ErrInvalid},
		{"no tenant", lanes(func(l *queue.Lane) { l.Tenant = "" }), store.ErrInvalid},
		{"reserves are all of the cap", lanes(func(l *queue.Lane) { l.Reserve.Queued = 2 }), store.ErrInvalid},
		{"reserve without a cap", lanes(func(l *queue.Lane) { l.Cap = 0 }), store.ErrInvalid},
		{"negative reserve", lanes(func(l *queue.Lane) { l.Reserve.Realtime = -1 }), store.ErrInvalid},
		{"cap out of range", lanes(func(l *queue.Lane) { l.Cap = math.MaxInt32 + 1 }), store.ErrInvalid},
		{"a lane twice", store.Limits{Lanes: []queue.Lane{lane, lane}}, store.ErrInvalid},
		{"a gate goes", gates(func(g *queue.Gate) { g.Cap, g.Reserve = 0, queue.Reserve{} }), nil},
		{"a gate without a tenant", gates(func(g *queue.Gate) { g.Tenant = "" }), store.ErrInvalid},
		{"a gate of no name", gates(func(g *queue.Gate) { g.Tenant = strings.Repeat("\xff", 2) }), store.ErrInvalid},
		{"a gate's reserves are all of it", gates(func(g *queue.Gate) { g.Reserve.Realtime = 2 }), store.ErrInvalid},
		{"a gate twice", store.Limits{Gates: []queue.Gate{gate, gate}}, store.ErrInvalid},
	} {
		f := &fake{}
		weight := 0.0
		if len(c.l.Lanes) > 0 {
			weight = c.l.Lanes[0].Weight
		}
		if err := store.New(f, store.Options{}).SetLimits(t.Context(), c.l); !errors.Is(err, c.want) || (len(f.limits) > 0) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if len(c.l.Lanes) > 0 && c.l.Lanes[0].Weight != weight {
			t.Errorf("%s: the caller's weight became %g", c.name, c.l.Lanes[0].Weight)
		}
		if c.name == "no weight" && f.limits[0].Lanes[0].Weight != 1 {
			t.Errorf("%s: the driver got %g, want 1", c.name, f.limits[0].Lanes[0].Weight)
		}
	}
}
