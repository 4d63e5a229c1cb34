package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

type mapKV map[string]string

func (kv mapKV) Get(_ context.Context, key string) ([]byte, bool, error) {
	v, ok := kv[key]
	if v == "broken" {
		return nil, false, errors.New("db at 10.0.0.7 is down")
	}
	return []byte(v), ok, nil
}

func kvEnv(kv mapKV) capability.Env {
	return capability.Env{KV: kv, Granted: map[string]bool{abi.OpKVGet: true, abi.OpKVPut: true}}
}

// asks builds a tool that makes capability calls in order and writes, for each
// one, its errno or the whole reply frame as a JSON string.
func asks(calls ...[2]string) []byte {
	return toolGuest(func(g *guest) []byte {
		const result, buf = 512, 32 << 10
		print := g.printer()
		get := w.Seq(w.I32(result), w.I64Load)
		handle := w.Seq(get, w.I64(32), []byte{0x87, 0xa7}) // shift right, wrap
		length := w.Seq(get, []byte{0xa7})
		out := g.write("[")
		for i, c := range calls {
			if i > 0 {
				out = w.Seq(out, g.write(","))
			}
			out = w.Seq(out,
				w.I32(result), g.call(abi.ImportCall, g.text(c[0]), g.text(c[1])), w.I64Store,
				get, w.I64(0), []byte{0x53}, w.If, print(get), []byte{0x05}, // else
				g.call(abi.ImportReplyRead, handle, w.I32(4), w.I32(buf), length), w.Drop,
				// A reply's head is JSON, and so are the bodies of these tests.
				g.write("["), g.call(abi.ImportOutputWrite, w.I32(buf), w.Seq(length, w.I32(-4), w.I32Add)), w.Drop, g.write("]"),
				g.call(abi.ImportStreamClose, handle),
				w.End,
			)
		}
		return w.Seq(out, g.write("]"), w.I32(0))
	})
}

func frameOf(key, body string) string {
	return string(abi.EncodeFrame(fmt.Appendf(nil, `{"key":%q}`, key), []byte(body)))
}

func TestKV(t *testing.T) {
	for _, tt := range []struct {
		name  string
		env   capability.Env
		calls [][2]string
		want  string
		puts  string
	}{
		{"get", kvEnv(mapKV{"a": ",1"}), [][2]string{{abi.OpKVGet, frameOf("a", "")}}, `[[{"status":200,"etag":"81aae69cd3583dd4a496db810d262030"},1]]`, ""},
		{"get nothing", kvEnv(nil), [][2]string{{abi.OpKVGet, frameOf("a", "")}}, `[[{"status":404}]]`, ""},
		{
			"own put", kvEnv(mapKV{"a": ",1"}),
			[][2]string{{abi.OpKVPut, frameOf("a", ",2")}, {abi.OpKVGet, frameOf("a", "")}},
			`[[{"status":204}],[{"status":200,"etag":"2d120c035f6f219e847aa279caf1e245"},2]]`, "a=,2;",
		},
		{"put twice", kvEnv(nil), [][2]string{{abi.OpKVPut, frameOf("a", ",1")}, {abi.OpKVPut, frameOf("a", ",2")}}, `[[{"status":204}],[{"status":204}]]`, "a=,1;a=,2;"},
		{"unknown op", kvEnv(nil), [][2]string{{"kv.get/2", frameOf("a", "")}, {"", ""}, {strings.Repeat("x", 5000), ""}}, `[-52,-52,-52]`, ""},
		{"not granted", capability.Env{KV: mapKV{}, Granted: map[string]bool{abi.OpKVGet: true}}, [][2]string{{abi.OpKVPut, frameOf("a", "1")}}, `[-63]`, ""},
		{"no env", capability.Env{}, [][2]string{{abi.OpKVGet, frameOf("a", "")}}, `[-63]`, ""},
		{"malformed frame", kvEnv(nil), [][2]string{{abi.OpKVGet, "abc"}, {abi.OpKVGet, "\xff\xff\xff\xff"}}, `[-28,-28]`, ""},
		{"malformed head", kvEnv(nil), [][2]string{{abi.OpKVGet, string(abi.EncodeFrame([]byte("{"), nil))}}, `[[{"status":400,"error":"invalid_request"}]]`, ""},
		{"empty key", kvEnv(nil), [][2]string{{abi.OpKVPut, frameOf("", ",1")}}, `[[{"status":400,"error":"invalid_key"}]]`, ""},
		{"nul in key", kvEnv(nil), [][2]string{{abi.OpKVPut, string(abi.EncodeFrame([]byte(`{"key":"a\u0000"}`), nil))}}, `[[{"status":400,"error":"invalid_key"}]]`, ""},
		{"half a surrogate", kvEnv(nil), [][2]string{{abi.OpKVPut, string(abi.EncodeFrame([]byte(`{"key":"\ud800"}`), nil))}}, `[[{"status":400,"error":"invalid_key"}]]`, ""},
		{"long key", kvEnv(nil), [][2]string{{abi.OpKVPut, frameOf(strings.Repeat("k", 513), "")}}, `[[{"status":400,"error":"invalid_key"}]]`, ""},
		{"large value", kvEnv(nil), [][2]string{{abi.OpKVPut, frameOf("k", strings.Repeat("v", 64<<10+1))}}, `[[{"status":413,"error":"value_too_large"}]]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := load(t, asks(tt.calls...)).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: tt.env})
			wantClass(t, res, plugins.OK)
			if got := string(res.Output); got != tt.want {
				t.Errorf("replies = %s, want %s", got, tt.want)
			}
			puts := ""
			for _, p := range res.Puts {
				puts += p.Key + "=" + string(p.Value) + ";"
			}
			if puts != tt.puts {
				t.Errorf("puts = %q, want %q", puts, tt.puts)
			}
			if res.Usage.HostCalls != len(tt.calls) {
				t.Errorf("host calls = %d, want %d", res.Usage.HostCalls, len(tt.calls))
			}
		})
	}
}

func TestKVPortError(t *testing.T) {
	res := load(t, asks([2]string{abi.OpKVPut, frameOf("b", "1")}, [2]string{abi.OpKVGet, frameOf("a", "")})).
		Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: kvEnv(mapKV{"a": "broken"})})
	wantClass(t, res, plugins.HostError)
	if strings.Contains(res.Detail, "10.0.0.7") {
		t.Errorf("detail tells of the host: %q", res.Detail)
	}
}

func TestKVGrantWithoutPort(t *testing.T) {
	env := capability.Env{Granted: map[string]bool{abi.OpKVGet: true}}
	res := load(t, asks([2]string{abi.OpKVGet, frameOf("a", "")})).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: env})
	wantClass(t, res, plugins.HostError)
}

func TestCallBudget(t *testing.T) {
	c := [2]string{abi.OpKVGet, frameOf("a", "")}
	res := load(t, asks(c, c, c)).Call(t.Context(), plugins.Call{
		Entry: abi.ExportToolCall, Env: kvEnv(nil), Limits: plugins.Limits{Calls: 2},
	})
	if got, want := string(res.Output), `[[{"status":404}],[{"status":404}],-19]`; got != want {
		t.Errorf("replies = %s, want %s", got, want)
	}
}

// TestFailedCallWritesNothing: writes go with the result, and only with OK.
func TestFailedCallWritesNothing(t *testing.T) {
	for name, end := range map[string][]byte{"trap": w.Unreachable, "non-zero": w.I32(1), "no output": w.I32(0)} {
		t.Run(name, func(t *testing.T) {
			res := callTool(t, plugins.Call{Env: kvEnv(nil)}, func(g *guest) []byte {
				return w.Seq(g.call(abi.ImportCall, g.text(abi.OpKVPut), g.text(frameOf("a", "1"))), w.Drop, end)
			})
			if res.Class == plugins.OK || res.Puts != nil || res.Usage.HostCalls != 1 {
				t.Errorf("class %s, puts %v, usage %+v; want a failure after one call without puts", res.Class, res.Puts, res.Usage)
			}
		})
	}
}

func TestHandles(t *testing.T) {
	res := callTool(t, plugins.Call{Env: kvEnv(mapKV{"a": "xyz"})}, func(g *guest) []byte {
		print := g.printer()
		read := func(h, off int32) []byte {
			return wide(g.call(abi.ImportReplyRead, w.I32(h), w.I32(off), w.I32(0), w.I32(100)))
		}
		ask := func() []byte { return g.call(abi.ImportCall, g.text(abi.OpKVGet), g.text(frameOf("a", ""))) }
		closeIt := func(h int32, then []byte) []byte {
			return w.Seq(g.call(abi.ImportStreamClose, w.I32(h)), then)
		}
		return g.report(print, read(1, 0), ask(), ask(), read(1, 20), read(2, 0), read(1, 1000), read(0, 0), read(-1, 0),
			closeIt(1, read(1, 0)), closeIt(1, read(2, 0)), closeIt(77, wide(g.call(abi.ImportStreamRead, w.I32(2), w.I32(0), w.I32(8)))))
	})
	const length = 4 + len(`{"status":200,"etag":"0123456789abcdef0123456789abcdef"}`) + 3
	want := fmt.Sprint([]int64{-8, 1<<32 | int64(length), 2<<32 | int64(length), int64(length) - 20, int64(length), 0, -8, -8, -8, int64(length), -8})
	if got := fmt.Sprint(numbers(t, res)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// List implements capability.KV.
func (kv mapKV) List(_ context.Context, prefix, after string, limit int) ([]string, error) {
	var keys []string
	for key := range kv {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))], nil
}

// Used implements capability.KV.
func (kv mapKV) Used(context.Context) (keys int, size int64, err error) {
	for key, value := range kv {
		size += int64(len(key) + len(value))
	}
	return len(kv), size, nil
}
