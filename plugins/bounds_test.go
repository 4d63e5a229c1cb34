package plugins_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// managerWith returns a manager of o for one test.
func managerWith(t *testing.T, o plugins.Options) *plugins.Manager {
	t.Helper()
	o.CacheDir = cacheDir
	m, err := plugins.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func loadInto(t *testing.T, m *plugins.Manager, wasm []byte) *plugins.Plugin {
	t.Helper()
	p, err := m.Load(t.Context(), "probe.wasm", wasm)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forTenant calls a tool for a tenant.
func forTenant(t *testing.T, p *plugins.Plugin, tenant, input string) plugins.Result {
	t.Helper()
	return p.Call(t.Context(), plugins.Call{
		Entry: abi.ExportToolCall, Input: []byte(input), Env: capability.Env{Tenant: tenant},
	})
}

// moody traps when it has an input and answers when it has none.
func moody() []byte {
	return toolGuest(func(g *guest) []byte {
		return w.Seq(g.call(abi.ImportInputLen), w.If, w.Unreachable, w.End, g.ok())
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened int
		m := managerWith(t, plugins.Options{
			Breaker: plugins.Breaker{Deaths: 3, Window: time.Minute, Open: 10 * time.Second},
			Observe: func(o plugins.Observation) {
				if o.Opened {
					opened++
				}
			},
		})
		p := loadInto(t, m, moody())
		die := func() plugins.Class { return forTenant(t, p, "a", "die").Class }
		live := func(tenant string) plugins.Class { return forTenant(t, p, tenant, "").Class }
		want := func(what string, got, want plugins.Class) {
			t.Helper()
			if got != want {
				t.Errorf("%s = %s, want %s", what, got, want)
			}
		}
		die()
		time.Sleep(2 * time.Minute) // the first death is forgotten
		die()
		die()
		want("after two deaths in the window", live("a"), plugins.OK)
		die()
		want("after three", live("a"), plugins.Unavailable)
		want("another tenant", live("b"), plugins.OK)
		time.Sleep(11 * time.Second)
		want("the trial", die(), plugins.Trap)
		want("after a trial that died", live("a"), plugins.Unavailable)
		time.Sleep(11 * time.Second)
		want("the second trial", live("a"), plugins.OK)
		want("after a trial that lived", live("a"), plugins.OK)
		if opened != 2 {
			t.Errorf("opened %d times, want 2", opened)
		}
	})
}

// TestBreakerTrialIsARealOne: a trial that never reached the guest tells
// nothing, so the breaker stays open but for the next one.
func TestBreakerTrialIsARealOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := managerWith(t, plugins.Options{
			Breaker: plugins.Breaker{Deaths: 2, Open: 10 * time.Second},
		})
		p := loadInto(t, m, moody())
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		wantClass(t, forTenant(t, p, "a", "die"), plugins.Trap)
		wantClass(t, forTenant(t, p, "a", "die"), plugins.Trap)
		time.Sleep(11 * time.Second)
		never := plugins.Call{Entry: abi.ExportToolCall, Env: capability.Env{Tenant: "a"}}
		wantClass(t, p.Call(canceled, never), plugins.Canceled)
		wantClass(t, forTenant(t, p, "a", "die"), plugins.Trap)
		wantClass(t, forTenant(t, p, "a", ""), plugins.Unavailable)
		time.Sleep(11 * time.Second)
		wantClass(t, forTenant(t, p, "a", ""), plugins.OK)
	})
}

// TestBreakerSurvivesThePanicOfAPort: the trial that a panic ended was none.
func TestBreakerSurvivesThePanicOfAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		m := managerWith(t, plugins.Options{
			Breaker: plugins.Breaker{Deaths: 1, Open: 10 * time.Second},
			TenantLimits: func(string) plugins.TenantLimits {
				if broken {
					panic("bug")
				}
				return plugins.TenantLimits{}
			},
		})
		p := loadInto(t, m, moody())
		wantClass(t, forTenant(t, p, "a", "die"), plugins.Trap)
		time.Sleep(11 * time.Second)
		broken = true
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			forTenant(t, p, "a", "")
		}()
		broken = false
		wantClass(t, forTenant(t, p, "a", ""), plugins.OK)
	})
}

func TestTenantFuel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := func(tenant string) plugins.TenantLimits {
			if tenant == "poor" {
				return plugins.TenantLimits{FuelPerMinute: 1_000_000}
			}
			return plugins.TenantLimits{}
		}
		m := managerWith(t, plugins.Options{TenantLimits: limits})
		p := loadInto(t, m, toolGuest(func(g *guest) []byte {
			return w.Seq(g.call(abi.ImportInputLen), w.If, forever, w.End, g.ok())
		}))
		res := forTenant(t, p, "poor", "spin")
		wantClass(t, res, plugins.Throttled)
		if res.Usage.Fuel < 1_000_000 || res.Usage.Fuel > 2_000_000 {
			t.Errorf("used %d fuel, want the minute's and at most a slice more", res.Usage.Fuel)
		}
		wantClass(t, forTenant(t, p, "poor", ""), plugins.Throttled)
		wantClass(t, forTenant(t, p, "rich", ""), plugins.OK)
		time.Sleep(2 * time.Minute)
		wantClass(t, forTenant(t, p, "poor", ""), plugins.OK)
	})
}

// TestPoliciesAreNotTheTenants: a tenant that has used up its fuel is still
// routed by the operator's policy.
func TestPoliciesAreNotTheTenants(t *testing.T) {
	m := managerWith(t, plugins.Options{TenantLimits: func(string) plugins.TenantLimits {
		return plugins.TenantLimits{FuelPerMinute: 1, Instances: 1}
	}})
	p := loadInto(t, m, counter(policyGuest))
	for range 3 {
		wantClass(t, ask(t, p, plugins.Call{Env: capability.Env{Tenant: "poor"}}), plugins.OK)
	}
}

func TestTenantInstances(t *testing.T) {
	one := func(string) plugins.TenantLimits { return plugins.TenantLimits{Instances: 1} }
	m := managerWith(t, plugins.Options{TenantLimits: one})
	p := loadInto(t, m, emitting((*guest).ok))
	release, first := held(t, p)
	short := plugins.Limits{Wall: 10 * time.Millisecond}
	call := plugins.Call{Entry: abi.ExportToolCall, Limits: short}
	wantClass(t, p.Call(t.Context(), call), plugins.Throttled)
	nested := call
	nested.Nested = true
	wantClass(t, p.Call(t.Context(), nested), plugins.OK)
	other := call
	other.Env.Tenant = "other"
	wantClass(t, p.Call(t.Context(), other), plugins.OK)
	waiting := make(chan plugins.Result)
	go func() { waiting <- p.Call(context.Background(), plugins.Call{Entry: abi.ExportToolCall}) }()
	release()
	wantClass(t, <-first, plugins.OK)
	wantClass(t, <-waiting, plugins.OK)
}

// TestTenantInstancesChange: a bound that is changed while calls wait holds for
// them.
func TestTenantInstancesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		most := 1
		m := managerWith(t, plugins.Options{
			TenantLimits: func(string) plugins.TenantLimits { return plugins.TenantLimits{Instances: most} },
		})
		p := loadInto(t, m, emitting((*guest).ok))
		var running atomic.Int32
		leave := make(chan struct{})
		call := plugins.Call{Entry: abi.ExportToolCall, Env: capability.Env{Emit: func(int32, []byte) error {
			running.Add(1)
			<-leave
			running.Add(-1)
			return nil
		}}}
		results := make(chan plugins.Result, 10)
		start := func(n int) {
			for range n {
				go func() { results <- p.Call(context.Background(), call) }()
				synctest.Wait()
			}
		}
		want := func(what string, n int32) {
			t.Helper()
			if synctest.Wait(); running.Load() != n {
				t.Errorf("%s: %d calls run, want %d", what, running.Load(), n)
			}
		}
		start(4)
		want("a bound of one", 1)
		most = 3
		start(1)
		want("raised to three", 3)
		most = 1
		start(1)
		for _, left := range []int32{2, 1, 1, 1, 1, 0} {
			leave <- struct{}{}
			want("lowered to one", left)
			wantClass(t, <-results, plugins.OK)
		}
	})
}

// TestIdleCap: what waits for a call holds no more memory than it may, and who
// waited longest goes first.
func TestIdleCap(t *testing.T) {
	m := managerWith(t, plugins.Options{IdleBytes: 1})
	p := loadInto(t, m, counter(toolGuest))
	for range 3 {
		wantClass(t, forTenant(t, p, "a", ""), plugins.OK)
	}
	if s := m.Stats(); s.Idle != 0 || s.IdleBytes != 0 {
		t.Errorf("stats = %+v, want nothing idle under a cap of a byte", s)
	}
	roomy := managerWith(t, plugins.Options{})
	p = loadInto(t, roomy, counter(toolGuest))
	for _, tenant := range []string{"a", "b", "a", "b", "c"} {
		wantClass(t, forTenant(t, p, tenant, ""), plugins.OK)
	}
	s := roomy.Stats()
	if s.Idle != 4 || s.Made != 4 || s.Restored != 6 || s.Lost != 0 || s.IdleBytes == 0 {
		t.Errorf("stats = %+v, want an instance for each of three tenants and the first", s)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := roomy.Stats(); s.Idle != 0 || s.IdleBytes != 0 {
		t.Errorf("stats after close = %+v, want nothing idle", s)
	}
}

// TestPurityIsChecked: one answer of a thousand is asked for again, and a
// policy that has nothing to tell two calls apart by gives the same.
func TestPurityIsChecked(t *testing.T) {
	var mu sync.Mutex
	var checked, impure int
	m := managerWith(t, plugins.Options{Observe: func(o plugins.Observation) {
		mu.Lock()
		defer mu.Unlock()
		if o.Checked {
			checked++
		}
		if o.Impure {
			impure++
		}
	}})
	p := loadInto(t, m, counter(policyGuest))
	for range 2500 {
		wantClass(t, ask(t, p, plugins.Call{}), plugins.OK)
	}
	if checked != 2 || impure != 0 {
		t.Errorf("checked %d, impure %d; want 2 of 2500 answers checked and none impure", checked, impure)
	}
	if made := m.Stats().Made; made != 2 {
		t.Errorf("%d instances were made, want one for the calls and another for the checks", made)
	}
}

// TestFreshWhereNotRestorable: a table that changed cannot be put back, so
// each call gets an instance of its own.
func TestFreshWhereNotRestorable(t *testing.T) {
	g := newGuest()
	g.Table(3)
	print := g.printer()
	g.entry(abi.ExportToolCall, g.report(print, wide(w.TableGrow(0, 1))))
	p := load(t, g.describes(toolDesc).Bytes())
	if got := strings.Join(p.Unrestorable(), ","); got != "table.grow" {
		t.Errorf("unrestorable = %q, want table.grow", got)
	}
	for range 3 {
		if got := numbers(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})); got[0] != 3 {
			t.Errorf("size of the table = %d, want 3", got[0])
		}
	}
}

// TestFreshStartIsPaid: what a module does at its start for each call is on the
// fuel, the wall clock and the tenant of the call.
func TestFreshStartIsPaid(t *testing.T) {
	const rounds = 300_000 // for more than two million fuel
	g := newGuest()
	g.Table(3)
	g.initialize(w.I32(1<<15), w.MemoryGrow, w.Drop, w.I32(512), w.I32(rounds), w.I32Store, w.Loop,
		w.I32(512), w.I32(512), w.I32Load, w.I32(-1), w.I32Add, w.I32Store,
		w.I32(512), w.I32Load, w.BrIf(0), w.End)
	g.entry(abi.ExportToolCall, w.TableGrow(0, 1), w.Drop, g.ok())
	m := managerWith(t, plugins.Options{TenantLimits: func(tenant string) plugins.TenantLimits {
		if tenant == "poor" {
			return plugins.TenantLimits{FuelPerMinute: rounds}
		}
		return plugins.TenantLimits{}
	}})
	p := loadInto(t, m, g.describes(toolDesc).Bytes())
	res := forTenant(t, p, "", "")
	wantClass(t, res, plugins.OK)
	if res.Usage.Fuel < 2_000_000 {
		t.Errorf("used %d fuel, want that of the start in it", res.Usage.Fuel)
	}
	wantClass(t, forTenant(t, p, "poor", ""), plugins.Throttled)
	short := plugins.Call{Entry: abi.ExportToolCall, Limits: plugins.Limits{Fuel: 1_000_000}}
	res = p.Call(t.Context(), short)
	wantClass(t, res, plugins.Fuel)
	if res.Usage.Fuel != 1_000_000 {
		t.Errorf("used %d fuel, want all of it", res.Usage.Fuel)
	}
	short.Limits = plugins.Limits{Wall: time.Nanosecond}
	wantClass(t, p.Call(t.Context(), short), plugins.Deadline)
}

// TestBootIsBounded: all that runs before the snapshot shares one budget, or a
// descriptor with many warm-up inputs would have many.
func TestBootIsBounded(t *testing.T) {
	p := load(t, counter(toolGuest))
	const n = 10
	for _, tt := range []struct {
		name string
		fuel uint64
		wall time.Duration
		last plugins.Class
	}{
		{"enough", 1 << 40, time.Minute, plugins.OK},
		{"fuel", 1000, time.Minute, plugins.Fuel},
		{"wall", 1 << 40, -1, plugins.Deadline},
	} {
		ends := plugins.Boot(t.Context(), p, abi.ExportDescribe, n, tt.fuel, tt.wall)
		if ends[n-1] != tt.last || tt.last == plugins.Fuel && ends[0] != plugins.OK {
			t.Errorf("%s: calls ended in %v, want the last in %s", tt.name, ends, tt.last)
		}
	}
}

// TestTablesAreHeld: they are the host's memory, so they count for the cap.
func TestTablesAreHeld(t *testing.T) {
	m := managerWith(t, plugins.Options{})
	g := newGuest()
	g.Table(1 << 16)
	g.entry(abi.ExportToolCall, g.ok())
	loadInto(t, m, g.describes(toolDesc).Bytes())
	if s := m.Stats(); s.Idle != 1 || s.IdleBytes < 8<<16 {
		t.Errorf("stats = %+v, want one instance with its table of 512 KiB", s)
	}
}

// TestMemoryLimitOfEachCall: the same instance serves calls with more and with
// less memory.
func TestMemoryLimitOfEachCall(t *testing.T) {
	m := managerWith(t, plugins.Options{})
	g := newGuest()
	print := g.printer()
	g.entry(abi.ExportToolCall, g.report(print, wide(w.Seq(w.I32(20), w.MemoryGrow)))) // to 24 pages
	p := loadInto(t, m, g.describes(toolDesc).Bytes())
	for _, tt := range []struct{ pages, want int64 }{{24, 4}, {23, -1}, {1000, 4}, {4, -1}, {24, 4}} {
		call := plugins.Call{Entry: abi.ExportToolCall, Limits: plugins.Limits{MemoryBytes: uint64(tt.pages << 16)}}
		if got := numbers(t, p.Call(t.Context(), call)); got[0] != tt.want {
			t.Errorf("memory.grow under %d pages = %d, want %d", tt.pages, got[0], tt.want)
		}
	}
	wantClass(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Limits: plugins.Limits{MemoryBytes: 3 << 16}}), plugins.Memory)
	if made := m.Stats().Made; made != 1 {
		t.Errorf("%d instances were made, want one", made)
	}
}

// TestOnRestore: it runs before each call, without powers, with the entropy
// and on the fuel of the call.
func TestOnRestore(t *testing.T) {
	g := newGuest()
	const at = 512
	g.entry(abi.ExportOnRestore,
		g.call("random_get", w.I32(at), w.I32(8)), w.Drop,
		w.I32(at+8), g.call(abi.ImportCall, g.text(abi.OpKVGet), g.text("")), w.I64Store,
		g.call(abi.ImportInputLen), w.I32(3), []byte{0x46}) // fails for an input of three bytes
	print := g.printer()
	g.entry(abi.ExportToolCall, g.report(print, w.Seq(w.I32(at), w.I64Load), w.Seq(w.I32(at+8), w.I64Load)))
	p := load(t, g.describes(toolDesc).Bytes())
	call := plugins.Call{Entry: abi.ExportToolCall, Env: kvEnv(nil)}
	a, b := numbers(t, p.Call(t.Context(), call)), numbers(t, p.Call(t.Context(), call))
	if a[0] == b[0] || a[1] != -63 || b[1] != -63 {
		t.Errorf("entropy and errno of a capability = %v and %v, want fresh entropy and -63", a, b)
	}
	call.Input = []byte("123")
	wantClass(t, p.Call(t.Context(), call), plugins.Failed)
}

// TestWarmUp: the inputs run before the snapshot, without powers.
func TestWarmUp(t *testing.T) {
	warm := func(inputs string) []byte {
		g := newGuest()
		const at = 512
		print := g.printer()
		// Counts its calls; an input that holds no "tool" at byte 7 is a real one.
		g.entry(abi.ExportToolCall, w.Seq(
			w.I32(at), w.I32(at), w.I32Load, w.I32(1), w.I32Add, w.I32Store,
			g.call(abi.ImportInputRead, w.I32(0), w.I32(at+8), w.I32(400)), w.I32(300), []byte{0x4a}, w.If, w.Unreachable, w.End,
			g.report(print, wide(w.Seq(w.I32(at), w.I32Load)))))
		return g.describes(strings.Replace(toolDesc, `"kinds"`, `"warm_up":`+inputs+`,"kinds"`, 1)).Bytes()
	}
	p := load(t, warm(`[{"tool":"probe","arguments":{}}]`))
	for range 2 {
		if got := numbers(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})); got[0] != 5 {
			t.Errorf("count = %d, want 5: four warm-up calls and this one", got[0])
		}
	}
	m := newManager(t)
	for inputs, want := range map[string]string{
		`[{"tool":"probe","arguments":{"x":"` + strings.Repeat("x", 300) + `"}}]`: "warm_up[0]: guest_trap",
		`[{"tool":"probe"},{}]`:              "warm_up[1]",
		`[{"route":{"v":1}}]`:                "route",
		`[{"tool":"probe","retry":{"v":1}}]`: "exactly one",
	} {
		if _, err := m.Load(t.Context(), "bad.wasm", warm(inputs)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("load with warm_up %.40s = %v, want %q in it", inputs, err, want)
		}
	}
}

// TestFuelIsExact: one value for the same call, on every image and manager.
func TestFuelIsExact(t *testing.T) {
	wasm := buildGo(t)
	seen := map[uint64]int{}
	for range 2 {
		m := managerWith(t, plugins.Options{})
		for range 2 {
			p := loadInto(t, m, wasm)
			for range 750 {
				res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: []byte(`{"do":"","n":1}`)})
				wantClass(t, res, plugins.OK)
				seen[res.Usage.Fuel]++
			}
		}
	}
	if len(seen) != 1 {
		t.Errorf("fuel used = %v, want one value", seen)
	}
}
