package engine_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
)

// restores are the ways in which an instance is put back: by copying all of a
// small image, only what changed of a large one, and all of it in the heap.
var restores = []struct {
	name     string
	portable bool
	pages    uint32
}{
	{"small image", false, 1},
	{"large image", false, 6},
	{"portable", true, 6},
}

// events are what may happen to an instance in a call.
var events = []struct {
	name string
	fuel uint64
	wall time.Duration
	ends func(error) bool // nil: the call returns 1001
}{
	{name: "count"},
	{name: "grow"},
	{name: "grow more"},
	{name: "unreachable", ends: faulted("unreachable")},
	{name: "out of bounds", ends: faulted("out of bounds memory access")},
	{name: "divide", ends: faulted("integer divide by zero")},
	{name: "memory bomb", ends: faulted("unreachable")},
	{name: "endless", fuel: 10_000_000, ends: is(engine.ErrFuel)},
	{name: "endless", wall: 5 * time.Millisecond, ends: is(engine.ErrStopped, context.DeadlineExceeded)},
	{name: "bulk", wall: 5 * time.Millisecond, ends: is(engine.ErrStopped, context.DeadlineExceeded)},
	{name: "recursion", wall: 5 * time.Millisecond, ends: is(engine.ErrStopped, context.DeadlineExceeded)},
	{name: "deep"},
	{name: "too deep", ends: is(engine.ErrDepth)},
	{name: "exit", ends: is(errExit)},
	{name: "panic", ends: func(err error) bool {
		var p *engine.HostPanic
		return errors.As(err, &p) && p.Value == "bug"
	}},
	{name: "cancel", ends: is(engine.ErrStopped, context.Canceled)},
	{name: "cancel, then call", ends: is(engine.ErrStopped, context.Canceled)},
}

func is(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if !errors.Is(err, target) {
				return false
			}
		}
		return true
	}
}

func faulted(want string) func(error) bool {
	return func(err error) bool {
		var trap *engine.Trap
		return errors.As(err, &trap) && trap.Fault() == want
	}
}

func TestRestore(t *testing.T) {
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
			im := image(t, e, testGuest(how.pages))
			in := start(t, im)
			pristine(t, in, im)
			for _, ev := range events {
				t.Run(ev.name, func(t *testing.T) {
					for range 3 {
						happen(t, in, ev.name, ev.fuel, ev.wall, ev.ends)
						if !in.Restorable() {
							t.Fatal("not restorable")
						}
						if err := in.Restore(); err != nil {
							t.Fatal(err)
						}
						pristine(t, in, im)
					}
				})
			}
		})
	}
}

// happen makes one call and checks how it ends.
func happen(t *testing.T, in *engine.Instance, name string, fuel uint64, wall time.Duration, ends func(error) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := engine.Run{Fuel: plenty.Fuel, Data: &state{cancel: cancel}}
	if fuel > 0 {
		r.Fuel = fuel
	}
	if wall > 0 {
		r.Deadline = time.Now().Add(wall)
	}
	v, err := in.Call(ctx, name, r)
	switch {
	case ends == nil && (v != 1001 || err != nil):
		t.Errorf("call = %d, %v; want 1001: one count in memory and one in a global", v, err)
	case ends != nil && (err == nil || !ends(err)):
		t.Errorf("call = %d, %v", v, err)
	}
}

// pristine checks that in is as im.
func pristine(t *testing.T, in *engine.Instance, im *engine.Image) {
	t.Helper()
	if in.MemorySize() != im.Size() || !bytes.Equal(engine.Memory(in), engine.ImageBytes(im)) {
		t.Errorf("memory of %d bytes is not that of the image, %d bytes", in.MemorySize(), im.Size())
	}
	bitsOf(t, in)
	if v, err := in.Call(t.Context(), "regrown", plenty); v != 0 || err != nil {
		t.Errorf("memory that is new to the guest = %d, %v; want zeros", v, err)
	}
	if err := in.Restore(); err != nil {
		t.Fatal(err)
	}
	if v, err := in.Call(t.Context(), "count", plenty); v != 1001 || err != nil {
		t.Errorf("count = %d, %v; want 1001", v, err)
	}
	if err := in.Restore(); err != nil {
		t.Fatal(err)
	}
}

// TestWarmImage: an image holds what the calls before it left, globals too.
func TestWarmImage(t *testing.T) {
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
			im := image(t, e, testGuest(how.pages), "count", "grow", "count")
			if want := uint64(how.pages+3) << 16; im.Size() != want {
				t.Errorf("image of %d bytes, want %d", im.Size(), want)
			}
			in := start(t, im)
			for range 3 {
				if v, err := in.Call(t.Context(), "count", plenty); v != 4004 || err != nil {
					t.Errorf("count = %d, %v; want 4004, the fourth in memory and in a global", v, err)
				}
				if err := in.Restore(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
