package wasip1_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/plugins/internal/abi/wasip1"
	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

const mib = 1 << 20

// vectors is a list of as many vectors as one write may have, each of a whole
// mebibyte.
func vectors() []byte {
	var b []byte
	for range 1024 {
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint32(b, mib)
	}
	return b
}

// sleep is a subscription to one hour of the monotonic clock.
func sleep() []byte {
	b := make([]byte, 48)
	binary.LittleEndian.PutUint32(b[16:], 1)
	binary.LittleEndian.PutUint64(b[24:], uint64(time.Hour))
	return b
}

// guest returns an instance whose "run" calls a function once, and whose
// "stall" does nothing else.
func guest(t *testing.T, name string, args ...int32) *engine.Instance {
	t.Helper()
	e, err := engine.New(context.Background(), engine.Options{Host: []engine.HostModule{wasip1.Module()}})
	if err != nil {
		t.Fatal(err)
	}
	var m w.Module
	for _, f := range wasip1.Module().Funcs {
		if f.Name == name {
			m.Import(wasip1.ModuleName, name, f.Sig)
		}
	}
	m.Memory(17).Data(mib, vectors()).Data(mib+16<<10, sleep())
	var call []byte
	for i, a := range args {
		if name == "clock_time_get" && i == 1 {
			call = w.Seq(call, w.I64(int64(a)))
			continue
		}
		call = w.Seq(call, w.I32(a))
	}
	call = w.Seq(call, w.Call(0))
	m.Export("run", m.Func(w.Sig("", "i"), call))
	m.Export("stall", m.Func(w.Sig("", "i"), w.Loop, call, w.Drop, w.Br(0), w.End, w.Unreachable))
	re, err := rewrite.Rewrite(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	code, err := e.Compile(context.Background(), re)
	if err != nil {
		t.Fatal(err)
	}
	in, err := code.Instantiate(context.Background(), 64*mib)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close(context.Background())
		e.Close(context.Background())
	})
	return in
}

func newFrame() *frame.Frame {
	return &frame.Frame{Clock: frame.NewClock(), Rand: frame.NewRand(1), Log: frame.NewLog(1000, 256<<10)}
}

// The arguments of calls that cost the host something.
var calls = []struct {
	name string
	args []int32
	fuel uint64 // that one call uses at least
}{
	{"random_get", []int32{0, mib}, mib},
	{"fd_write", []int32{1, mib, 1024, 0}, 1024 * 65536},
	{"fd_read", []int32{0, mib, 1024, 0}, 512},
	{"clock_time_get", []int32{1, 0, 0}, 0},
	{"sched_yield", nil, 0},
	{"poll_oneoff", []int32{0, 16 << 10, 0, 0}, 0},
	{"fd_close", []int32{99}, 0},
}

// TestStall: a guest that does nothing but let the host work is stopped, by its
// deadline and by its fuel.
func TestStall(t *testing.T) {
	for _, tt := range calls {
		t.Run(tt.name, func(t *testing.T) {
			in := guest(t, tt.name, tt.args...)
			r := engine.Run{Fuel: 1 << 50, Deadline: time.Now().Add(5 * time.Millisecond), Data: newFrame()}
			if _, err := in.Call(t.Context(), "stall", r); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call = %v, want the deadline", err)
			}
			r = engine.Run{Fuel: 1_000_000, Data: newFrame()}
			if _, err := in.Call(t.Context(), "stall", r); !errors.Is(err, engine.ErrFuel) {
				t.Errorf("call = %v, want out of fuel", err)
			}
			r = engine.Run{Fuel: 1 << 50, Data: newFrame()}
			if _, err := in.Call(t.Context(), "run", r); err != nil || in.FuelUsed() < tt.fuel+engine.HostCallFuel {
				t.Errorf("call = %v, used %d fuel; want %d", err, in.FuelUsed(), tt.fuel+engine.HostCallFuel)
			}
		})
	}
}

// TestFullLog: what no log keeps costs nobody anything.
func TestFullLog(t *testing.T) {
	in := guest(t, "fd_write", 1, mib, 1024, 0)
	f := newFrame()
	f.Log = frame.NewLog(0, 0)
	if _, err := in.Call(t.Context(), "run", engine.Run{Fuel: 1_000_000, Data: f}); err != nil {
		t.Errorf("write = %v, want it to be dropped", err)
	}
}

// TestSleep: a sleep ends with the call, whatever ends that. Time that stands
// still is moved by it.
func TestSleep(t *testing.T) {
	const oneSub = 1
	in := guest(t, "poll_oneoff", mib+16<<10, 0, oneSub, 8)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := engine.Run{Fuel: 1 << 20, Deadline: begin.Add(time.Second), Data: newFrame()}
		if _, err := in.Call(t.Context(), "run", r); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("sleep = %v after %v, want the deadline", err, time.Since(begin))
		}
		begin = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		r = engine.Run{Fuel: 1 << 20, Deadline: begin.Add(2 * time.Hour), Data: newFrame()}
		if _, err := in.Call(ctx, "run", r); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Minute {
			t.Errorf("sleep = %v after %v, want canceled", err, time.Since(begin))
		}
		begin = time.Now()
		r.Data = newFrame()
		if v, err := in.Call(t.Context(), "run", r); v != 0 || err != nil || time.Since(begin) != time.Hour {
			t.Errorf("sleep = %d, %v after %v; want an hour", v, err, time.Since(begin))
		}
		begin = time.Now()
		f := &frame.Frame{Clock: frame.NewPureClock()}
		before := f.Clock.Monotonic()
		if v, err := in.Call(t.Context(), "run", engine.Run{Fuel: 1 << 20, Data: f}); v != 0 || err != nil ||
			time.Since(begin) != 0 || f.Clock.Monotonic()-before != int64(time.Hour) {
			t.Errorf("pure sleep = %d, %v after %v; want its clock to move by an hour", v, err, time.Since(begin))
		}
	})
}
