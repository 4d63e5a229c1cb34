package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// transient is an error that knows its fail code.
type transient struct{}

func (transient) Error() string                  { return "busy" }
func (transient) Failure() (abi.FailCode, int64) { return abi.FailTransient, 250 }

func TestRun(t *testing.T) {
	tests := []struct {
		name string
		body func(guest.Host) error
		want *guest.Failure
	}{
		{"success", func(h guest.Host) error { return h.Write([]byte("out")) }, nil},
		{
			"plain error", func(guest.Host) error { return errors.New("broken") },
			&guest.Failure{Code: abi.FailInternal, RetryAfterMS: -1, Text: "broken"},
		},
		{
			"error with a code", func(guest.Host) error { return transient{} },
			&guest.Failure{Code: abi.FailTransient, RetryAfterMS: 250, Text: "busy"},
		},
		{
			"wrapped error with a code", func(guest.Host) error { return fmt.Errorf("asking: %w", transient{}) },
			&guest.Failure{Code: abi.FailTransient, RetryAfterMS: 250, Text: "asking: busy"},
		},
		{
			"panic", func(guest.Host) error { var list []string; return errors.New(list[0]) },
			&guest.Failure{Code: abi.FailInternal, RetryAfterMS: -1, Text: "panic: runtime error: index out of range [0] with length 0"},
		},
		{
			"panic after output", func(h guest.Host) error { _ = h.Write([]byte("half")); panic("late") },
			&guest.Failure{Code: abi.FailInternal, RetryAfterMS: -1, Text: "panic: late"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h guest.Fake
			status := guest.Run(&h, tt.body)
			if !reflect.DeepEqual(h.Failed, tt.want) {
				t.Errorf("failed %+v, want %+v", h.Failed, tt.want)
			}
			if (status == 0) != (tt.want == nil) {
				t.Errorf("status %d", status)
			}
			if tt.want != nil && h.Out != nil {
				t.Errorf("output %q of a failed call", h.Out)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	var r guest.Registry
	r.Name("notes", "0.1.0", "Keeps notes.")
	r.Name("notes", "0.1.0", "Keeps notes.") // the same again is no mistake
	r.Tool(abi.ToolDescriptor{Name: "b", Parameters: json.RawMessage(`{}`), Effects: abi.EffectsPure})
	r.Tool(abi.ToolDescriptor{Name: "a", Parameters: json.RawMessage(`{}`)})
	r.Kind(abi.KindRetry)
	r.Want(abi.OpKVPut)
	r.Want(abi.OpKVGet, abi.OpKVPut)
	got, err := r.Describe()
	want := `{"v":1,"name":"notes","version":"0.1.0","description":"Keeps notes.","kinds":["retry","tool"],` +
		`"tools":[{"name":"b","description":"","parameters":{},"effects":"pure"},{"name":"a","description":"","parameters":{}}],` +
		`"capabilities":["kv.get/1","kv.put/1"]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

// TestWarmUp: what the author adds stands in place of what the SDK adds.
func TestWarmUp(t *testing.T) {
	var r guest.Registry
	r.Name("x", "1.0.0", "")
	r.Tool(abi.ToolDescriptor{Name: "a", Parameters: json.RawMessage(`{}`)})
	r.WarmUp("a", false, abi.WarmUp{Tool: "a"})
	r.WarmUp("route", false, abi.WarmUp{Route: json.RawMessage(`{}`)})
	check := func(want string) {
		t.Helper()
		got, err := r.Describe()
		if err != nil || !strings.HasSuffix(string(got), `"warm_up":`+want+`}`) {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	check(`[{"tool":"a"},{"route":{}}]`)
	r.WarmUp("a", true, abi.WarmUp{Tool: "a", Arguments: json.RawMessage(`{"n":1}`)})
	r.WarmUp("a", true, abi.WarmUp{Tool: "a", Arguments: json.RawMessage(`{"n":2}`)})
	check(`[{"route":{}},{"tool":"a","arguments":{"n":1}},{"tool":"a","arguments":{"n":2}}]`)
	if !r.OwnWarmUp("a") || r.OwnWarmUp("route") {
		t.Error("whose inputs they are is not known")
	}
}

func TestDescribeReportsMistakes(t *testing.T) {
	tool := abi.ToolDescriptor{Name: "t", Parameters: json.RawMessage(`{}`)}
	tests := []struct {
		name     string
		register func(*guest.Registry)
		want     string
	}{
		{"nothing at all", func(*guest.Registry) {}, "the plugin has no name"},
		{"no tool and no policy", func(r *guest.Registry) { r.Name("x", "1.0.0", "") }, "nothing is registered"},
		{"no version", func(r *guest.Registry) { r.Name("x", "", "") }, `plugin "x" has no version`},
		{"two names", func(r *guest.Registry) { r.Name("x", "1.0.0", ""); r.Name("y", "1.0.0", "") }, "plugin is x 1.0.0 already"},
		{"a name with a capital", func(r *guest.Registry) { r.Name("Notes", "1.0.0", "") }, `plugin name "Notes"`},
		{"a name with a digit first", func(r *guest.Registry) { r.Name("1st", "1.0.0", "") }, `plugin name "1st"`},
		{"a name too long", func(r *guest.Registry) { r.Name(strings.Repeat("x", 64), "1.0.0", "") }, "plugin name"},
		{"a tool name with a dot", func(r *guest.Registry) { r.Tool(abi.ToolDescriptor{Name: "a.b"}) }, `tool name "a.b"`},
		{"a tool name too long", func(r *guest.Registry) { r.Tool(abi.ToolDescriptor{Name: strings.Repeat("x", 65)}) }, "tool name"},
		{"a tool without a name", func(r *guest.Registry) { r.Tool(abi.ToolDescriptor{}) }, `tool name ""`},
		{"a tool twice", func(r *guest.Registry) { r.Tool(tool); r.Tool(tool) }, "tool t is registered twice"},
		{"two config schemas", func(r *guest.Registry) {
			r.ConfigSchema(json.RawMessage(`{}`))
			r.ConfigSchema(json.RawMessage(`{}`))
		}, "config schema is set twice"},
		{"a schema that is not JSON", func(r *guest.Registry) {
			r.Name("x", "1.0.0", "")
			r.Tool(abi.ToolDescriptor{Name: "t", Parameters: json.RawMessage(`{`)})
		}, "describe: json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r guest.Registry
			tt.register(&r)
			if _, err := r.Describe(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEnterWithoutRegistration(t *testing.T) {
	var r guest.Registry
	var h guest.Fake
	if status := r.Enter(abi.ExportRoute, &h); status == 0 || h.Failed == nil || h.Failed.Code != abi.FailInternal {
		t.Errorf("got status %d, failure %+v; want an internal failure", status, h.Failed)
	}
}

func TestFakeCall(t *testing.T) {
	put := abi.EncodeFrame([]byte(`{"key":"k"}`), []byte("v"))
	h := guest.Fake{Granted: map[string]bool{abi.OpKVPut: true, "later/1": true}}
	if _, err := h.Call(abi.OpKVGet, put); !errors.Is(err, abi.EPERM) {
		t.Errorf("an op that is not granted: got %v, want EPERM", err)
	}
	if _, err := h.Call("later/1", put); !errors.Is(err, abi.ENOSYS) {
		t.Errorf("an unknown op: got %v, want ENOSYS", err)
	}
	if _, err := h.Call(abi.OpKVPut, []byte{9, 0, 0, 0}); !errors.Is(err, abi.EINVAL) {
		t.Errorf("a broken frame: got %v, want EINVAL", err)
	}
	reply, err := h.Call(abi.OpKVPut, put)
	if want := abi.EncodeFrame([]byte(`{"status":204}`), nil); err != nil || string(reply) != string(want) {
		t.Errorf("a put: got %q, %v; want %q", reply, err, want)
	}
	if got := string(h.KV["k"]); got != "v" {
		t.Errorf("state after the put: got %q, want v", got)
	}
}
