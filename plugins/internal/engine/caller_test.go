package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// hostCall calls "run" of the test guest, which calls do.
func hostCall(t *testing.T, ctx context.Context, deadline time.Time, do func(c *engine.Caller)) error {
	t.Helper()
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	in := start(t, image(t, e, testGuest(1)))
	_, err := in.Call(ctx, "run", engine.Run{Fuel: 10_000_000, Deadline: deadline, Data: &state{run: do}})
	return err
}

func TestSlice(t *testing.T) {
	const top = 1 << 16
	err := hostCall(t, t.Context(), time.Time{}, func(c *engine.Caller) {
		for _, tt := range []struct {
			ptr, n uint32
			ok     bool
		}{
			{0, 0, true},
			{0, top, true},
			{top, 0, true},
			{top - 1, 1, true},
			{1000, 4, true},
			{top, 1, false},
			{top - 1, 2, false},
			{0, top + 1, false},
			{0xffffffff, 1, false},
			{1, 0xffffffff, false},
			{0xffffffff, 0xffffffff, false},
		} {
			b, ok := c.Slice(tt.ptr, tt.n)
			if ok != tt.ok || ok && (len(b) != int(tt.n) || cap(b) != int(tt.n)) {
				t.Errorf("Slice(%#x, %#x) = %d bytes of %d, %v; want %v", tt.ptr, tt.n, len(b), cap(b), ok, tt.ok)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSpend(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		deadline time.Time
		do       func(c *engine.Caller)
		want     error
	}{
		{"one more than there is", t.Context(), time.Time{}, func(c *engine.Caller) { c.Spend(c.FuelLeft() + 1) }, engine.ErrFuel},
		{"all the fuel in the world", t.Context(), time.Time{}, func(c *engine.Caller) { c.Spend(1<<64 - 1) }, engine.ErrFuel},
		{"canceled", canceled, time.Time{}, func(c *engine.Caller) {
			cancel()
			for range 100 {
				c.Spend(4000)
			}
			t.Error("spent 400,000 fuel after the cancel")
		}, context.Canceled},
		{"too late", t.Context(), time.Now().Add(50 * time.Millisecond), func(c *engine.Caller) {
			<-c.Context().Done()
			c.Spend(5000)
			t.Error("spent fuel after the deadline")
		}, context.DeadlineExceeded},
		{"pieces", t.Context(), time.Time{}, func(c *engine.Caller) {
			left, n := c.FuelLeft(), 0
			for p := range c.Pieces(make([]byte, 1<<20+16)) {
				n += len(p)
				if spent := left - c.FuelLeft(); spent != uint64(n)/16 || len(p) > 64<<10 {
					t.Errorf("spent %d fuel on %d bytes, the last %d", spent, n, len(p))
				}
			}
			if n != 1<<20+16 {
				t.Errorf("pieces of %d bytes together", n)
			}
			engine.Abort(errExit)
		}, errExit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := hostCall(t, tt.ctx, tt.deadline, tt.do); !errors.Is(err, tt.want) {
				t.Errorf("call = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestFuelLeft: what a host function sees is what the call may still use.
func TestFuelLeft(t *testing.T) {
	var left [3]uint64
	err := hostCall(t, t.Context(), time.Time{}, func(c *engine.Caller) {
		left[0] = c.FuelLeft()
		c.Spend(1000)
		left[1] = c.FuelLeft()
		c.Spend(1 << 20)
		left[2] = c.FuelLeft()
	})
	if err != nil || left[0] > 10_000_000-engine.HostCallFuel || left[0] < 9_900_000 ||
		left[0]-left[1] != 1000 || left[1]-left[2] != 1<<20 {
		t.Errorf("call = %v, fuel left = %d", err, left)
	}
}

// TestCallerContext: the context of a host function ends with the call's, at
// the deadline, and after the call.
func TestCallerContext(t *testing.T) {
	type key struct{}
	var kept context.Context
	parent := context.WithValue(t.Context(), key{}, "value")
	err := hostCall(t, parent, time.Now().Add(time.Hour), func(c *engine.Caller) {
		kept = c.Context()
		if d, ok := kept.Deadline(); !ok || time.Until(d) > time.Hour || kept.Value(key{}) != "value" || kept != c.Context() {
			t.Errorf("context %v", kept)
		}
	})
	if err != nil || kept.Err() == nil {
		t.Errorf("call = %v; the context ended by %v", err, kept.Err())
	}
	err = hostCall(t, t.Context(), time.Now().Add(20*time.Millisecond), func(c *engine.Caller) {
		<-c.Context().Done()
		engine.Abort(engine.Stopped(c.Context()))
	})
	if !errors.Is(err, engine.ErrStopped) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call = %v, want the deadline", err)
	}
}

// lateContext has a deadline and a timer that never fires.
type lateContext struct {
	context.Context
	deadline time.Time
}

func (c lateContext) Deadline() (time.Time, bool) { return c.deadline, true }

// TestContextDeadline: a context's own deadline holds without its timer.
func TestContextDeadline(t *testing.T) {
	ctx := lateContext{t.Context(), time.Now().Add(5 * time.Millisecond)}
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	in := start(t, image(t, e, testGuest(1)))
	_, err := in.Call(ctx, "endless", engine.Run{Fuel: plenty.Fuel, Deadline: time.Now().Add(time.Hour)})
	if !errors.Is(err, engine.ErrStopped) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call = %v, want the deadline", err)
	}
}

// TestSeesCancel: after a cancel the guest reaches only what tells it so.
func TestSeesCancel(t *testing.T) {
	var reached []string
	fn := func(name string, sees bool, do func(c *engine.Caller)) engine.HostFunc {
		return engine.HostFunc{Name: name, SeesCancel: sees, Fn: func(c *engine.Caller, _ []uint64) {
			reached = append(reached, name)
			do(c)
		}}
	}
	var cancel context.CancelFunc
	host := engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		fn("cancel", false, func(*engine.Caller) { cancel() }),
		fn("sees", true, func(c *engine.Caller) {
			c.Spend(1 << 14)
			reached = append(reached, c.Context().Err().Error())
		}),
		fn("other", false, func(*engine.Caller) {}),
	}}
	e := newEngine(t, engine.Options{Host: []engine.HostModule{host}})
	var m w.Module
	for _, f := range host.Funcs {
		m.Import("h", f.Name, w.Sig("", ""))
	}
	begin := w.Seq(w.Call(0), w.Call(1), w.Call(1))
	m.Memory(1).
		Export("calls", m.Func(w.Sig("", "i"), begin, w.Call(2), w.I32(0))).
		Export("runs on", m.Func(w.Sig("", "i"), begin, w.Loop, w.Br(0), w.End, w.Unreachable))
	in := start(t, image(t, e, &m))
	for _, name := range []string{"calls", "runs on"} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			cancel, reached = stop, nil
			_, err := in.Call(ctx, name, plenty)
			const want = "cancel, sees, context canceled, sees, context canceled"
			if got := strings.Join(reached, ", "); !errors.Is(err, context.Canceled) || got != want {
				t.Errorf("call = %v, reached %s; want %s", err, got, want)
			}
		})
	}
}

// TestSeesCancelEnds: what a canceled guest may still call does not keep it
// alive: it has the rest of one slice.
func TestSeesCancelEnds(t *testing.T) {
	calls := 0
	var cancel context.CancelFunc
	host := engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		{Name: "cancel", Fn: func(*engine.Caller, []uint64) { cancel() }},
		{Name: "sees", SeesCancel: true, Fn: func(*engine.Caller, []uint64) { calls++ }},
	}}
	e := newEngine(t, engine.Options{Host: []engine.HostModule{host}})
	var m w.Module
	for _, f := range host.Funcs {
		m.Import("h", f.Name, w.Sig("", ""))
	}
	m.Memory(1).Export("go", m.Func(w.Sig("", "i"), w.Call(0), w.Loop, w.Call(1), w.Br(0), w.End, w.Unreachable))
	in := start(t, image(t, e, &m))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cancel = stop
	_, err := in.Call(ctx, "go", engine.Run{Fuel: 1 << 30})
	if !errors.Is(err, context.Canceled) || calls == 0 || calls > 1<<18/engine.HostCallFuel {
		t.Errorf("call = %v after %d calls, want canceled within a slice", err, calls)
	}
}

func TestHostFunctions(t *testing.T) {
	cause := errors.New("the cause")
	host := engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		{Name: "abort", Fn: func(*engine.Caller, []uint64) { engine.Abort(cause) }},
		{Name: "panic", Fn: func(*engine.Caller, []uint64) { panic("bug") }},
		{Name: "index", Fn: func(_ *engine.Caller, s []uint64) { s[len(s)+1] = 0 }},
	}}
	e := newEngine(t, engine.Options{Host: []engine.HostModule{host}})
	var m w.Module
	for _, f := range host.Funcs {
		m.Import("h", f.Name, w.Sig("", ""))
	}
	m.Memory(1)
	for i, f := range host.Funcs {
		m.Export(f.Name, m.Func(w.Sig("", "i"), w.Call(uint32(i)), w.I32(0)))
		m.Export(f.Name+" itself", uint32(i))
	}
	in := start(t, image(t, e, &m))
	for _, suffix := range []string{"", " itself"} {
		var trap *engine.Trap
		if _, err := in.Call(t.Context(), "abort"+suffix, plenty); !errors.Is(err, cause) || !errors.As(err, &trap) {
			t.Errorf("abort%s = %v, want a trap with its cause", suffix, err)
		} else if suffix == "" && trap.Trace != "h.abort()\n$3() i32" {
			t.Errorf("trace = %q, want the functions", trap.Trace)
		}
		for _, name := range []string{"panic", "index"} {
			var p *engine.HostPanic
			if _, err := in.Call(t.Context(), name+suffix, plenty); !errors.As(err, &p) || errors.As(err, &trap) {
				t.Errorf("%s = %v, want a HostPanic", name+suffix, err)
			}
		}
	}
	if !in.Restorable() {
		t.Error("not restorable")
	}
}
