package plugins_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
)

// goGuest is built once for all tests.
var goGuest struct {
	once sync.Once
	wasm []byte
}

func buildGo(t testing.TB) []byte {
	t.Helper()
	goGuest.once.Do(func() { goGuest.wasm = guesttest.Build(t, "testdata/goguest") })
	if goGuest.wasm == nil {
		t.Fatal("the guest was not built")
	}
	return goGuest.wasm
}

func TestGoGuest(t *testing.T) {
	m := newManager(t)
	p, err := m.Load(t.Context(), "goguest.wasm", buildGo(t))
	if err != nil {
		t.Fatal(err)
	}
	call := func(t *testing.T, entry, do string, n int, c plugins.Call) (plugins.Result, map[string]any) {
		t.Helper()
		c.Entry = entry
		c.Input = fmt.Appendf(nil, `{"do":%q,"n":%d}`, do, n)
		if c.Limits.Wall == 0 {
			c.Limits.Wall = 30 * time.Second
		}
		res := p.Call(t.Context(), c)
		var out map[string]any
		if res.Class == plugins.OK {
			if err := json.Unmarshal(res.Output, &out); err != nil {
				t.Fatal(err)
			}
		}
		return res, out
	}

	for _, entry := range []string{abi.ExportToolCall, abi.ExportRoute} {
		t.Run("garbage in "+entry, func(t *testing.T) {
			// The collector must run with clocks that stand still, too, and
			// memory must not grow past the collected heap.
			for range 3 {
				res, out := call(t, entry, "garbage", 20_000, plugins.Call{NowMS: 1, Limits: plugins.Limits{Fuel: 1e9}})
				wantClass(t, res, plugins.OK)
				if out["collected"] != true || res.Usage.Memory > 14<<20 {
					t.Errorf("out = %v, memory = %d; want a collection and less than 14 MiB", out, res.Usage.Memory)
				}
			}
		})
		t.Run("goroutines in "+entry, func(t *testing.T) {
			res, out := call(t, entry, "goroutines", 100, plugins.Call{})
			wantClass(t, res, plugins.OK)
			if out["total"] != 4950.0 {
				t.Errorf("total = %v", out["total"])
			}
		})
	}
	t.Run("a gibibyte of garbage", func(t *testing.T) {
		res, out := call(t, abi.ExportToolCall, "garbage", 1<<30/10_000+1, plugins.Call{Limits: plugins.Limits{Fuel: 5e9}})
		wantClass(t, res, plugins.OK)
		if out["collected"] != true || res.Usage.Memory > 64<<20 {
			t.Errorf("out = %v, memory = %d; want it done within 64 MiB", out, res.Usage.Memory)
		}
		t.Logf("used %d fuel and %d KiB", res.Usage.Fuel, res.Usage.Memory>>10)
	})
	t.Run("sleep of a tool", func(t *testing.T) {
		res, out := call(t, abi.ExportToolCall, "sleep", 20, plugins.Call{})
		wantClass(t, res, plugins.OK)
		if ms := out["slept_ms"].(float64); ms < 19 || res.Usage.Wall < 20*time.Millisecond {
			t.Errorf("slept %v ms in %v", ms, res.Usage.Wall)
		}
		res, _ = call(t, abi.ExportToolCall, "sleep", 3_600_000, plugins.Call{Limits: plugins.Limits{Wall: 50 * time.Millisecond}})
		wantClass(t, res, plugins.Deadline)
	})
	t.Run("sleep of a policy", func(t *testing.T) {
		res, out := call(t, abi.ExportRoute, "sleep", 3_600_000, plugins.Call{NowMS: 1000})
		wantClass(t, res, plugins.OK)
		if ms := out["slept_ms"].(float64); ms != 3_600_000 || res.Usage.Wall > 10*time.Second {
			t.Errorf("slept %v ms in %v, want a virtual hour at once", ms, res.Usage.Wall)
		}
	})
	t.Run("world of a tool", func(t *testing.T) {
		_, a := call(t, abi.ExportToolCall, "world", 0, plugins.Call{NowMS: 5})
		_, b := call(t, abi.ExportToolCall, "world", 0, plugins.Call{NowMS: 5})
		if a["calls"] != 1.0 || b["calls"] != 1.0 {
			t.Errorf("calls = %v, %v; want each to be the first", a["calls"], b["calls"])
		}
		if a["entropy"] == b["entropy"] {
			t.Errorf("entropy of the host repeats: %v", a)
		}
		if a["rand"] != b["rand"] {
			t.Errorf("rand = %v and %v; the state of a guest's own generator is in its image, and so the same", a["rand"], b["rand"])
		}
		if age := time.Since(time.UnixMilli(int64(a["now_ms"].(float64)))); age.Abs() > time.Minute {
			t.Errorf("clock is %v off", age)
		}
		if a["args"] != 0.0 && a["args"] != 1.0 || a["env"] != 0.0 || a["file"] != true {
			t.Errorf("world = %v, want no arguments, environment or files", a)
		}
	})
	t.Run("world of a policy", func(t *testing.T) {
		_, a := call(t, abi.ExportRoute, "world", 0, plugins.Call{NowMS: 1_700_000_000_123, Seed: 42})
		_, b := call(t, abi.ExportRoute, "world", 0, plugins.Call{NowMS: 1_700_000_000_123, Seed: 42})
		_, c := call(t, abi.ExportRoute, "world", 0, plugins.Call{NowMS: 1_600_000_000_000, Seed: 43})
		if a["now_ms"] != 1_700_000_000_123.0 || c["now_ms"] != 1_600_000_000_000.0 {
			t.Errorf("now = %v and %v", a["now_ms"], c["now_ms"])
		}
		if a["entropy"] != b["entropy"] || a["entropy"] == c["entropy"] {
			t.Errorf("entropy of seeds 42, 42, 43 = %v, %v, %v", a["entropy"], b["entropy"], c["entropy"])
		}
	})
	t.Run("print", func(t *testing.T) {
		res, _ := call(t, abi.ExportToolCall, "print", 0, plugins.Call{})
		if len(res.Logs) != 2 || res.Logs[0].Text != "out" || res.Logs[1].Text != "err" {
			t.Errorf("logs = %q", res.Logs)
		}
	})
	t.Run("panic", func(t *testing.T) {
		res, _ := call(t, abi.ExportToolCall, "panic", 0, plugins.Call{})
		wantClass(t, res, plugins.Trap)
		if len(res.Logs) == 0 || !strings.Contains(res.Logs[0].Text, "the guest's own words") || !strings.HasPrefix(res.Detail, "unreachable") {
			t.Errorf("logs = %q, detail = %q; want the panic's text and a trap", res.Logs, res.Detail)
		}
	})
	t.Run("out of memory", func(t *testing.T) {
		for _, entry := range []string{abi.ExportToolCall, abi.ExportRoute} {
			res, _ := call(t, entry, "oom", 0, plugins.Call{})
			wantClass(t, res, plugins.Memory)
		}
	})
}

func TestPackGoGuest(t *testing.T) {
	wasm := buildGo(t)
	packed, err := plugins.Pack(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	in, err := plugins.Inspect(packed)
	if err != nil {
		t.Fatal(err)
	}
	if in.ABI != plugins.ABINative || in.Packed == nil || in.Packed.Version != "1.2.3" || len(in.Memory) != 1 {
		t.Errorf("inspection = %+v", in)
	}
	if !bytes.Contains(packed, []byte(`"future":{"a":[2,1],"b":1}`)) {
		t.Error("an unknown field is not in the packed descriptor, or not in canonical form")
	}
}
