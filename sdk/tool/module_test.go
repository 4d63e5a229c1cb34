package tool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/plugintest/plugintesting"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
)

// kit loads the module of testdata/kit.
func kit(t *testing.T) *plugins.Plugin {
	t.Helper()
	return plugintesting.Load(t, guesttest.Build(t, "testdata/kit"))
}

// noState is a KV without entries.
type noState struct{}

func (noState) Get(context.Context, string) ([]byte, bool, error) { return nil, false, nil }

func (noState) List(context.Context, string, string, int) ([]string, error) {
	return []string{"a", "b", "c", "d"}, nil
}

func (noState) Used(context.Context) (int, int64, error) { return 0, 0, nil }

// site is an HTTP with one answer.
type site struct{}

func (site) Do(_ context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	text, end := "pong", io.EOF
	if r.URL != "https://a.test" {
		end = &capability.HTTPError{Code: abi.HTTPTimeout}
	}
	if r.Method == "POST" {
		text = r.Header[0].Value + string(r.Body)
	}
	return &capability.HTTPResponse{
		Status: 201, Header: []capability.HTTPHeader{{Name: "x", Value: "y"}},
		Body: io.NopCloser(io.MultiReader(iotest.OneByteReader(strings.NewReader(text)), iotest.ErrReader(end))),
	}, nil
}

// others is a Tools with one tool.
type others struct{}

func (others) Call(_ context.Context, n int, tool string, arguments []byte) (capability.ToolReply, error) {
	return capability.ToolReply{Output: fmt.Appendf(nil, "%d %s %s", n, tool, arguments)}, nil
}

// granted is what the kit wants.
var granted = map[string]bool{
	abi.OpKVGet: true, abi.OpKVPut: true, abi.OpKVDelete: true, abi.OpKVList: true, abi.OpHTTPFetch: true, abi.OpToolCall: true,
}

func TestModule(t *testing.T) {
	p := kit(t)
	var emitted []string
	env := capability.Env{
		Tenant: "default", Granted: granted, KV: noState{}, HTTP: site{}, Tools: others{},
		Emit: func(kind int32, data []byte) error {
			emitted = append(emitted, string(data))
			return nil
		},
	}
	do := func(t *testing.T, env capability.Env, what string) plugins.Result {
		t.Helper()
		input, err := json.Marshal(abi.ToolCall{
			V: abi.Version, Tool: "do", Arguments: json.RawMessage(`{"what":"` + what + `"}`),
			Call: abi.CallInfo{ResponseID: "resp_1", Step: "/3", Attempt: 2, IdempotencyKey: "resp_1//3", Tenant: "default", Model: "demo", DeadlineInMS: 5},
		})
		if err != nil {
			t.Fatal(err)
		}
		return p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: input, Env: env})
	}
	for what, want := range map[string]string{
		"calls": "1", "log": `"logged"`, "emit": `"emitted"`, "budget": "true", "sleep": "true", "state": "true", "now": "true",
		"list": `[["a","c"],true]`, "http": `[201,"y","1ping"]`, "stream": `"pong"`, "broken stream": `"i/o error"`, "tool": `"0 other {\"n\":1}"`,
		"info": `{"response_id":"resp_1","step":"/3","attempt":2,"idempotency_key":"resp_1//3","tenant":"default","model":"demo","deadline_in_ms":5}`,
	} {
		t.Run(what, func(t *testing.T) {
			r := do(t, env, what)
			if want := `{"v":1,"output":` + want + `}`; r.Class != plugins.OK || string(r.Output) != want {
				t.Errorf("got %s, %s (%s); want %s", r.Class, r.Output, r.Detail, want)
			}
			if what == "log" && (len(r.Logs) != 2 || r.Logs[0] != plugins.LogLine{Level: abi.LevelWarn, Text: "a line"} || r.Logs[1].Text != "printed") {
				t.Errorf("logs: got %+v", r.Logs)
			}
			if what == "state" && (len(r.Puts) != 1 || r.Puts[0].Key != "k" || string(r.Puts[0].Value) != "a\x00b") {
				t.Errorf("puts: got %+v", r.Puts)
			}
		})
	}
	if strings.Join(emitted, "|") != "half" {
		t.Errorf("emitted: got %q", emitted)
	}
	if a, b := do(t, env, "random"), do(t, env, "random"); a.Class != plugins.OK || string(a.Output) == string(b.Output) {
		t.Errorf("two calls drew the same number: %s, %s", a.Output, b.Output)
	}
	if again := do(t, env, "calls"); string(again.Output) != `{"v":1,"output":1}` {
		t.Errorf("a later call sees what an earlier one left: %s", again.Output)
	}

	fails := []struct {
		what string
		env  capability.Env
		code abi.FailCode
		text string
	}{
		{"panic", env, abi.FailInternal, "panic: told to"},
		{"transient", env, abi.FailTransient, "busy"},
		{"long text", env, abi.FailPermanent, strings.Repeat("x", abi.MaxFailText)},
		{"large output", env, abi.FailPermanent, "result of do, 2097171 bytes: too big"},
		{"large state", env, abi.FailPermanent, `kv.put/1 "k": value_too_large`},
		{"state", capability.Env{}, abi.FailDenied, `kv.put/1 "k": not granted`},
		{"http", capability.Env{}, abi.FailDenied, `http.fetch/1 "https://a.test": not granted`},
		{"tool", capability.Env{}, abi.FailDenied, `tool.call/1 "other": not granted`},
	}
	for _, tt := range fails {
		t.Run("fails by "+tt.what, func(t *testing.T) {
			r := do(t, tt.env, tt.what)
			if r.Class != plugins.Failed || r.Fail == nil || r.Fail.Code != tt.code || r.Fail.Text != tt.text {
				t.Fatalf("got %s, %+v (%s); want %s: %s", r.Class, r.Fail, r.Detail, tt.code, tt.text)
			}
			if want := 1500 * time.Millisecond; tt.code == abi.FailTransient && r.Fail.RetryAfter != want {
				t.Errorf("retry after %v, want %v", r.Fail.RetryAfter, want)
			}
			if r.Puts != nil {
				t.Errorf("a failed call wrote %+v", r.Puts)
			}
		})
	}
	t.Run("a panic on another goroutine", func(t *testing.T) {
		if r := do(t, env, "panic elsewhere"); r.Class != plugins.Trap {
			t.Errorf("got %s (%s), want %s", r.Class, r.Detail, plugins.Trap)
		}
	})
	t.Run("a policy in the same module", func(t *testing.T) {
		r := p.Call(t.Context(), plugins.Call{Entry: abi.ExportRetry, Input: []byte(`{"v":1,"now_ms":30}`)})
		if want := `{"v":1,"action":"retry","delay_ms":30,"reason":"again"}`; r.Class != plugins.OK || string(r.Output) != want {
			t.Errorf("got %s, %s (%s); want %s", r.Class, r.Output, r.Detail, want)
		}
	})
	t.Run("an entry that is not registered", func(t *testing.T) {
		if r := p.Call(t.Context(), plugins.Call{Entry: abi.ExportRoute, Input: []byte(`{"v":1}`)}); r.Class != plugins.Denied {
			t.Errorf("got %s, want %s", r.Class, plugins.Denied)
		}
	})
}
