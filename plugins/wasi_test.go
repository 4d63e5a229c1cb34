package plugins_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// TestWASI calls functions with numbers and compares what they answer.
func TestWASI(t *testing.T) {
	const at = 1024
	n := func(args ...int32) []byte {
		var out []byte
		for _, a := range args {
			out = w.Seq(out, w.I32(a))
		}
		return out
	}
	load32 := wide(w.Seq(w.I32(at), w.I32Load))
	for _, tt := range []struct {
		name   string
		fn     string
		args   []byte
		result []byte // an i64 to read after the call; nil for none
		want   string
	}{
		{"no arguments", "args_sizes_get", n(at, at+4), load32, "[0,0]"},
		{"no environment", "environ_sizes_get", n(at+4, at), load32, "[0,0]"},
		{"get no arguments", "args_get", n(-1, -1), nil, "[0]"},
		{"no directories", "fd_prestat_get", n(3, at), nil, "[8]"},
		{"no names of directories", "fd_prestat_dir_name", n(3, at, 10), nil, "[8]"},
		{"unknown descriptor", "fd_close", n(3), nil, "[8]"},
		{"negative descriptor", "fd_fdstat_get", n(-1, at), nil, "[8]"},
		{"close standard output", "fd_close", n(1), nil, "[0]"},
		{"standard input is at its end", "fd_read", n(0, at, 1, at+8), wide(w.Seq(w.I32(at+8), w.I32Load)), "[0,0]"},
		{"read of an output", "fd_read", n(1, at, 0, at), nil, "[58]"},
		{"write to the input", "fd_write", n(0, at, 0, at), nil, "[58]"},
		{"write to nowhere", "fd_write", n(7, at, 0, at), nil, "[8]"},
		{"too many vectors", "fd_write", n(1, 0, 1025, at), nil, "[28]"},
		{"far too many vectors", "fd_write", n(1, 0, 1<<29, at), nil, "[28]"},
		{"seek", "fd_seek", w.Seq(n(1), w.I64(0), n(0, at)), nil, "[70]"},
		{"directory of an output", "path_unlink_file", n(1, at, 1), nil, "[54]"},
		{"directory of nothing", "path_unlink_file", n(3, at, 1), nil, "[8]"},
		{"socket", "sock_shutdown", n(5, 0), nil, "[8]"},
		{"yield", "sched_yield", nil, nil, "[0]"},
		{"signal", "proc_raise", n(9), nil, "[52]"},
		{"clock resolution", "clock_res_get", n(1, at), w.Seq(w.I32(at), w.I64Load), "[0,1000000]"},
		{"clock of the processor", "clock_time_get", w.Seq(n(2), w.I64(0), n(at)), nil, "[28]"},
		{"output is a device", "fd_filestat_get", n(1, at), wide(w.Seq(w.I32(at+16), w.I32Load8)), "[0,2]"},
		{"poll for nothing", "poll_oneoff", n(at, at, 0, at), nil, "[28]"},
		{"poll for too much", "poll_oneoff", n(at, at, 1025, at), nil, "[28]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := callTool(t, plugins.Call{}, func(g *guest) []byte {
				print := g.printer()
				values := [][]byte{wide(g.call(tt.fn, tt.args))}
				if tt.result != nil {
					values = append(values, tt.result)
				}
				return g.report(print, values...)
			})
			wantClass(t, res, plugins.OK)
			if got := string(res.Output); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestPoll polls a descriptor that is ready, one that does not exist, and two
// timeouts.
func TestPoll(t *testing.T) {
	const sub, out, count = 1024, 2048, 3000
	subscribe := func(i int32, userdata int64, tag, fdOrClock int32, timeout time.Duration) []byte {
		at := sub + 48*i
		return w.Seq(
			w.I32(at), w.I64(userdata), w.I64Store, w.I32(at+8), w.I32(tag), w.I32Store,
			w.I32(at+16), w.I32(fdOrClock), w.I32Store, w.I32(at+24), w.I64(int64(timeout)), w.I64Store,
		)
	}
	i64 := func(at int32) []byte { return w.Seq(w.I32(at), w.I64Load) }
	i32 := func(at int32) []byte { return wide(w.Seq(w.I32(at), w.I32Load)) }
	poll := func(t *testing.T, n int32, values int32, subs ...[]byte) string {
		t.Helper()
		res := callTool(t, plugins.Call{}, func(g *guest) []byte {
			print := g.printer()
			report := [][]byte{
				w.Seq(w.Seq(subs...), wide(g.call("poll_oneoff", w.I32(sub), w.I32(out), w.I32(n), w.I32(count)))), i32(count),
			}
			for i := range values {
				report = append(report, i64(out+32*i), i32(out+32*i+8))
			}
			return g.report(print, report...)
		})
		return fmt.Sprint(numbers(t, res))
	}
	// errno 0, two events: (10, ready to write), (11, EBADF)
	if got, want := poll(t, 3, 2, subscribe(0, 10, 2, 1, 0), subscribe(1, 11, 1, 9, 0), subscribe(2, 12, 0, 1, time.Hour)),
		fmt.Sprint([]int{0, 2, 10, 2 << 16, 11, 1<<16 | 8}); got != want {
		t.Errorf("descriptors = %s, want %s", got, want)
	}
	if got, want := poll(t, 2, 1, subscribe(0, 10, 0, 1, time.Hour), subscribe(1, 11, 0, 0, 5*time.Millisecond)),
		fmt.Sprint([]int{0, 1, 11, 0}); got != want {
		t.Errorf("timeouts = %s, want %s", got, want)
	}
	if got, want := poll(t, 1, 0, subscribe(0, 10, 7, 0, 0)), fmt.Sprint([]int{28, 0}); got != want {
		t.Errorf("unknown tag = %s, want %s", got, want)
	}
}

func TestPack(t *testing.T) {
	wasm := toolGuest((*guest).ok)
	packed, err := plugins.Pack(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	// A stale section is replaced, not compared.
	var stale w.Module
	stale.Custom(abi.Section, []byte(`{"v":1,"name":"old"}`))
	again, err := plugins.Pack(t.Context(), append(wasm, stale.Bytes()[8:]...))
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(packed) {
		t.Error("packing over an old section gives other bytes")
	}
	if _, err := newManager(t).Load(t.Context(), "packed.wasm", packed); err != nil {
		t.Error(err)
	}
	if _, err := plugins.Pack(t.Context(), []byte("rubbish")); !errors.Is(err, plugins.ErrRefused) {
		t.Errorf("pack of rubbish = %v, want ErrRefused", err)
	}
}

func TestInspect(t *testing.T) {
	in, err := plugins.Inspect(toolGuest((*guest).ok))
	if err != nil {
		t.Fatal(err)
	}
	if in.ABI != plugins.ABINative || in.Packed != nil || in.Problem != "" || in.Memory[0].Min != 4<<16 || in.Memory[0].Max != nil {
		t.Errorf("inspection = %+v", in)
	}
	want := plugins.Symbol{Module: abi.Module, Name: abi.ImportInputLen, Kind: "func", Signature: "() → i32"}
	if in.Imports[0] != want {
		t.Errorf("first import = %+v, want %+v", in.Imports[0], want)
	}
	var m w.Module
	m.Memory(1).Export("_start", m.Func(w.Sig("", ""))).Custom(abi.Section, []byte("{"))
	if in, err = plugins.Inspect(m.Bytes()); err != nil || in.ABI != plugins.ABIWasiCommand || in.Problem == "" || in.Packed != nil {
		t.Errorf("inspection = %+v, %v; want a command with a broken section", in, err)
	}
	if in, err = plugins.Inspect([]byte("\x00asm\x0d\x00\x01\x00")); err != nil || in.ABI != plugins.ABIComponent {
		t.Errorf("inspection of a component = %+v, %v", in, err)
	}
	if _, err := plugins.Inspect([]byte("rubbish")); !errors.Is(err, plugins.ErrRefused) {
		t.Errorf("inspection of rubbish = %v, want ErrRefused", err)
	}
}
