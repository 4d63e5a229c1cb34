package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

func TestNoExport(t *testing.T) {
	e := newEngine(t, engine.Options{})
	var m w.Module
	m.Memory(1)
	m.Export("one", m.Func(w.Sig("", "i"), w.I32(1)))
	m.Export("none", m.Func(w.Sig("", "")))
	m.Export("takes", m.Func(w.Sig("i", "i"), w.I32(1)))
	m.Export("two", m.Func(w.Sig("", "ii"), w.I32(1), w.I32(2)))
	m.Export("long", m.Func(w.Sig("", "l"), w.I64(1)))
	in := start(t, image(t, e, &m))
	for name, want := range map[string]bool{
		"one": true, "none": true, "takes": false, "two": false, "long": false, "memory": false, "nothing": false,
	} {
		if got := in.HasExport(name); got != want {
			t.Errorf("HasExport(%s) = %v, want %v", name, got, want)
		}
		if _, err := in.Call(t.Context(), name, plenty); want != (err == nil) || !want && !errors.Is(err, engine.ErrNoExport) {
			t.Errorf("%s = %v", name, err)
		}
	}
}

// TestData: segments are written in order and have to fit, and the start
// function is the caller's to call.
func TestData(t *testing.T) {
	e := newEngine(t, engine.Options{})
	var m w.Module
	m.Memory(1).Data(0, []byte("abcdef")).Data(2, []byte("xy")).Data(1<<16-1, []byte("z")).Data(1<<16, nil)
	m.Start(m.Func(w.Sig("", ""), w.I32(0), w.I32(0), w.I32Store))
	in, err := compile(t, e, &m).Instantiate(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	if mem := engine.Memory(in); string(mem[:6]) != "abxyef" || mem[1<<16-1] != 'z' {
		t.Errorf("memory = %q…%q", mem[:6], mem[1<<16-1])
	}
	if _, err := in.Call(t.Context(), rewrite.StartExport, plenty); err != nil || string(engine.Memory(in)[:6]) != "\x00\x00\x00\x00ef" {
		t.Errorf("start = %v, memory = %q", err, engine.Memory(in)[:6])
	}

	for name, m := range map[string]*w.Module{
		"too long": new(w.Module).Memory(1).Data(1<<16-1, []byte("ab")),
		"too far":  new(w.Module).Memory(1).Data(-1, nil),
	} {
		if _, err := compile(t, e, m).Instantiate(t.Context(), limit); !faulted("out of bounds memory access")(err) {
			t.Errorf("%s: instantiate = %v, want a trap", name, err)
		}
	}
}

// TestUnrestorable: there are no images of what an image cannot hold.
func TestUnrestorable(t *testing.T) {
	e := newEngine(t, engine.Options{})
	var m w.Module
	m.Memory(1).Table(1).Export("run", m.Func(w.Sig("", "i"), w.TableGrow(0, 1)))
	code := compile(t, e, &m)
	in, err := code.Instantiate(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	if len(code.Unrestorable()) == 0 || in.Restorable() {
		t.Error("a table that grows is taken for restorable")
	}
	if _, err := in.Snapshot(); err == nil || !strings.Contains(err.Error(), code.Unrestorable()[0]) {
		t.Errorf("snapshot = %v, want why not", err)
	}
	if err := in.Restore(); err == nil {
		t.Error("an instance without an image was restored")
	}
}

// TestOneAtATime: nothing can be done to an instance in the midst of a call,
// and closing it waits for the call's end.
func TestOneAtATime(t *testing.T) {
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
			im := image(t, e, testGuest(how.pages))
			in, err := im.Instantiate(t.Context(), limit)
			if err != nil {
				t.Fatal(err)
			}
			inside := func(c *engine.Caller) {
				if _, err := in.Call(c.Context(), "count", plenty); err == nil {
					t.Error("an instance was called from inside")
				}
				if err := in.Restore(); err == nil {
					t.Error("an instance was restored from inside")
				}
				if _, err := in.Snapshot(); err == nil {
					t.Error("an image was taken from inside")
				}
				in.Close(c.Context())
				in.Close(c.Context())
				if b, ok := c.Slice(1000, 4); !ok || b[0] != 0 {
					t.Error("memory is gone before the call's end")
				}
			}
			v, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: &state{run: inside}})
			if v != 1001 || err != nil {
				t.Errorf("call = %d, %v; want 1001: it was closed, not ended", v, err)
			}
			if _, err := in.Call(t.Context(), "count", plenty); err == nil {
				t.Error("a closed instance was called")
			}
			if err := in.Restore(); err == nil {
				t.Error("a closed instance was restored")
			}
		})
	}
}

// TestImageOutlives: an image that is closed serves the instances it has, and
// makes no more.
func TestImageOutlives(t *testing.T) {
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
			im := image(t, e, testGuest(how.pages))
			in := start(t, im)
			for range 2 {
				if err := im.Close(); err != nil {
					t.Fatal(err)
				}
			}
			pristine(t, in, im)
			if _, err := im.Instantiate(t.Context(), limit); err == nil {
				t.Error("a closed image made an instance")
			}
		})
	}
}

// TestEngineClosed: when the engine goes first, memory stays until it is given
// back by who has it.
func TestEngineClosed(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Options{Host: []engine.HostModule{testHost}})
	if err != nil {
		t.Fatal(err)
	}
	im := image(t, e, testGuest(6))
	in := start(t, im)
	v, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: &state{run: func(c *engine.Caller) {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if b, ok := c.Slice(counter, 1); !ok || b[0] != 1 {
			t.Error("memory is gone before the call's end")
		}
	}}})
	if err == nil {
		t.Errorf("call = %d, want an error: its engine is gone", v)
	}
	if in.Restorable() {
		t.Error("an instance of a closed engine is restorable")
	}
}

// TestDeepStack: what a deep call made the engine allocate does not stay.
func TestDeepStack(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	in := start(t, image(t, e, testGuest(1)))
	for _, tt := range []struct {
		name string
		keep int
	}{{"count", 1}, {"deep", 0}, {"count", 1}, {"too deep", 0}} {
		_, err := in.Call(t.Context(), tt.name, plenty)
		if errors.Is(err, engine.ErrDepth) != (tt.name == "too deep") {
			t.Errorf("%s = %v", tt.name, err)
		}
		if got := engine.Functions(in); got != tt.keep {
			t.Errorf("after %s, %d functions are kept; want %d", tt.name, got, tt.keep)
		}
	}
}

// TestEndedBefore: a call that is over before it begins does nothing.
func TestEndedBefore(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	im := image(t, e, testGuest(1))
	in := start(t, im)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Call(ctx, "count", plenty); !errors.Is(err, engine.ErrStopped) || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled call = %v", err)
	}
	late := engine.Run{Fuel: plenty.Fuel, Deadline: time.Now().Add(-time.Second)}
	if _, err := in.Call(t.Context(), "count", late); !errors.Is(err, engine.ErrStopped) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("late call = %v", err)
	}
	if string(engine.Memory(in)) != string(engine.ImageBytes(im)) {
		t.Error("the guest ran")
	}
}
