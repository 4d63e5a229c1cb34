package engine_test

import (
	"errors"
	"testing"

	"github.com/casemate/casemate/plugins/internal/engine"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// counting returns a module whose "run" loops 5,000 times, calling the host
// in every tenth round.
func counting() *w.Module {
	var m w.Module
	m.Import("h", "run", w.Sig("", ""))
	m.Memory(1)
	m.Export("run", m.Func(w.Sig("", "i"),
		w.I32(5000), w.LocalSet(0),
		w.Loop,
		w.LocalGet(0), w.I32(10), []byte{0x70}, w.I32Eqz, w.If, w.Call(0), w.End,
		w.LocalGet(0), w.I32(-1), w.I32Add, []byte{0x22}, []byte{0}, w.BrIf(0),
		w.End, w.I32(7)))
	return &m
}

// spender is a host whose function run spends fuel of its own.
func spender(fuel uint64) engine.HostModule {
	return engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		{Name: "run", Fn: func(c *engine.Caller, _ []uint64) { c.Spend(fuel) }},
	}}
}

// TestFuelExact: a call uses the same on every instance of every image, in
// however many slices, and no less is enough for it.
func TestFuelExact(t *testing.T) {
	seen := map[uint64]int{}
	for _, slice := range []int64{1, 1001, 1 << 18} {
		for range 2 {
			e := newEngine(t, engine.Options{Host: []engine.HostModule{spender(33)}})
			engine.SetSlice(e, slice)
			in := start(t, image(t, e, counting()))
			for range 500 {
				if _, err := in.Call(t.Context(), "run", plenty); err != nil {
					t.Fatal(err)
				}
				seen[in.FuelUsed()]++
				if err := in.Restore(); err != nil {
					t.Fatal(err)
				}
			}
			enough(t, in, slice)
		}
	}
	if len(seen) != 1 {
		t.Errorf("fuel used = %v, want one value", seen)
	}
}

// enough checks that a call needs all the fuel that it uses.
func enough(t *testing.T, in *engine.Instance, slice int64) {
	t.Helper()
	if _, err := in.Call(t.Context(), "run", plenty); err != nil {
		t.Fatal(err)
	}
	need := in.FuelUsed()
	for less := range uint64(3) {
		_, err := in.Call(t.Context(), "run", engine.Run{Fuel: need - less})
		var trap *engine.Trap
		switch {
		case less == 0 && err != nil:
			t.Errorf("slice %d: with %d fuel = %v", slice, need, err)
		case less > 0 && (!errors.Is(err, engine.ErrFuel) || !errors.As(err, &trap) || trap.Trace != "" && trap.Trace != "$1() i32"):
			t.Errorf("slice %d: with %d fuel less = %v, want a trap out of fuel in the guest's function", slice, less, err)
		}
		if in.FuelUsed() != need-less {
			t.Errorf("slice %d: used %d of %d fuel", slice, in.FuelUsed(), need-less)
		}
	}
	if min := uint64(500 * (33 + engine.HostCallFuel)); need < min+5000 {
		t.Errorf("used %d fuel, want more than the %d of 500 calls of the host", need, min)
	}
}

func TestRefill(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	in := start(t, image(t, e, testGuest(1)))
	broke := errors.New("broke")
	var asked []uint64
	_, err := in.Call(t.Context(), "endless", engine.Run{Fuel: plenty.Fuel, Refill: func(used uint64) error {
		asked = append(asked, used)
		if len(asked) == 4 {
			return broke
		}
		return nil
	}})
	var trap *engine.Trap
	if !errors.As(err, &trap) || !errors.Is(trap.Cause, broke) {
		t.Errorf("call = %v, want the error of Refill", err)
	}
	for i, used := range asked {
		if i > 0 && used-asked[i-1] < 1<<18 || used > uint64(i+1)*(1<<18+2000) {
			t.Errorf("asked after %v fuel, want once for each slice", asked)
		}
	}
	if len(asked) != 4 || in.FuelUsed() != asked[3] {
		t.Errorf("asked %d times, used %d; want 4 times, the last with all that was used", len(asked), in.FuelUsed())
	}
	if _, err := in.Call(t.Context(), "count", engine.Run{Fuel: 1000, Refill: func(uint64) error { return broke }}); err != nil {
		t.Errorf("short call = %v, want nobody to be asked", err)
	}
}

// TestFuelAtTheEnd: what is used after the last check counts as well.
func TestFuelAtTheEnd(t *testing.T) {
	e := newEngine(t, engine.Options{})
	var m w.Module
	m.Memory(1).Export("run", m.Func(w.Sig("", "i"),
		w.I32(0), w.If, w.End, w.I32(1), w.I32(2), w.I32Add))
	in := start(t, image(t, e, &m))
	if _, err := in.Call(t.Context(), "run", plenty); err != nil {
		t.Fatal(err)
	}
	need := in.FuelUsed()
	for _, tt := range []struct {
		fuel uint64
		want error
	}{{need, nil}, {need - 1, engine.ErrFuel}, {need - 2, engine.ErrFuel}} {
		v, err := in.Call(t.Context(), "run", engine.Run{Fuel: tt.fuel})
		if !errors.Is(err, tt.want) || err != nil && v != 0 || in.FuelUsed() != tt.fuel {
			t.Errorf("with %d of %d fuel = %d, %v, used %d; want %v", tt.fuel, need, v, err, in.FuelUsed(), tt.want)
		}
	}
}

// TestNoFuel: a call without fuel does nothing.
func TestNoFuel(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	im := image(t, e, testGuest(1))
	in := start(t, im)
	if _, err := in.Call(t.Context(), "count", engine.Run{}); !errors.Is(err, engine.ErrFuel) {
		t.Errorf("call = %v, want out of fuel", err)
	}
	if got, want := string(engine.Memory(in)), string(engine.ImageBytes(im)); got != want {
		t.Error("a call without fuel wrote to memory")
	}
}
