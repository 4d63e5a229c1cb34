package tool_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
	"github.com/casemate/casemate/sdk/tool/tooltest"
)

type sayArgs struct {
	What string `json:"what" jsonschema:"what to say" enum:"hello,bye"`
	Loud bool   `json:"loud,omitempty"`
}

type config struct {
	Prefix string `json:"prefix"`
}

type keyArgs struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

type failArgs struct {
	How string `json:"how"`
}

func init() {
	tool.Plugin("kit", "1.2.3", "Tools of the tests.")
	tool.Want(abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall)
	tool.ConfigOf[config]()
	tool.Register(tool.Tool{Name: "say", Description: "Says it.", Effects: tool.Pure, Timeout: 2*time.Second - time.Nanosecond}, say)
	tool.Register(tool.Tool{Name: "swap"}, swap)
	tool.Register(tool.Tool{Name: "fail"}, fail)
	tool.Register(tool.Tool{Name: "see"}, see)
	tool.Register(tool.Tool{Name: "run"}, func(ctx tool.Context, _ struct{}) (any, error) { return body(ctx) })
	tool.Register(tool.Tool{Name: "free", Parameters: []byte(`{"type":"object"}`)},
		func(_ tool.Context, a map[string]any) (int, error) { return len(a), nil })
}

func say(ctx tool.Context, a sayArgs) (string, error) {
	var c config
	if err := ctx.Config(&c); err != nil {
		return "", err
	}
	if a.Loud {
		a.What = strings.ToUpper(a.What)
	}
	return c.Prefix + a.What, nil
}

// swap puts a value and returns the one before.
func swap(ctx tool.Context, a keyArgs) (string, error) {
	before, _, err := ctx.KV().Get(a.Key)
	if err != nil {
		return "", err
	}
	if err := ctx.KV().Put(a.Key, []byte(a.Value)); err != nil {
		return "", err
	}
	after, _, err := ctx.KV().Get(a.Key)
	return string(before) + ">" + string(after), err
}

func fail(ctx tool.Context, a failArgs) (any, error) {
	switch a.How {
	case "invalid":
		return nil, tool.InvalidArgs("no %s", "such thing")
	case "not found":
		return nil, tool.NotFound("nobody home")
	case "denied":
		return nil, tool.Denied("not yours")
	case "transient":
		return nil, tool.Transient(1500*time.Millisecond, "busy")
	case "transient without a time":
		return nil, tool.Transient(-1, "busy")
	case "permanent":
		return nil, tool.Permanent("never")
	case "plain":
		return nil, errors.New("plain")
	case "panic":
		panic("in the handler")
	case "after a put":
		if err := ctx.KV().Put("k", []byte("v")); err != nil {
			return nil, err
		}
		return nil, tool.Permanent("too late")
	case "no json":
		return math.NaN(), nil
	}
	return tool.Reply{Output: "seen as an error", IsError: true}, nil
}

// see returns what a Context tells.
func see(ctx tool.Context, _ struct{}) (map[string]any, error) {
	ctx.Log(abi.LevelInfo, "seen")
	if err := ctx.Emit(1, []byte("half")); err != nil {
		return nil, err
	}
	b := ctx.Budget()
	return map[string]any{
		"step": ctx.Call().Step, "fresh": ctx.Rand().Uint64() != ctx.Rand().Uint64(),
		"endless": b.Time == math.MaxInt64 && b.Fuel == math.MaxInt64, "later": ctx.Deadline().After(time.Now()),
	}, nil
}

func TestDescribe(t *testing.T) {
	d, err := tooltest.Describe()
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "kit" || d.Version != "1.2.3" || len(d.Tools) != 6 || string(d.ConfigSchema) == "" {
		t.Errorf("got %+v", d)
	}
	want := abi.ToolDescriptor{
		Name: "say", Description: "Says it.", Effects: abi.EffectsPure, TimeoutMS: 2000,
		Parameters: []byte(`{"type":"object","properties":{"what":{"type":"string","description":"what to say","enum":["hello","bye"]},` +
			`"loud":{"type":"boolean"}},"required":["what"],"additionalProperties":false}`),
	}
	if !reflect.DeepEqual(d.Tools[0], want) {
		t.Errorf("got %+v\nwant %+v", d.Tools[0], want)
	}
}

func TestCall(t *testing.T) {
	tests := []struct {
		name string
		call tooltest.Call
		want string // Result.Text
	}{
		{"a string", tooltest.Call{Tool: "say", Arguments: `{"what":"hello"}`}, "hello"},
		{"an option", tooltest.Call{Tool: "say", Arguments: `{"what":"bye","loud":true}`}, "BYE"},
		{"a config", tooltest.Call{Tool: "say", Arguments: `{"what":"bye"}`, Config: `{"prefix":"good"}`}, "goodbye"},
		{"state", tooltest.Call{Tool: "swap", Arguments: `{"key":"k","value":"new"}`, KV: map[string][]byte{"k": []byte("old")}}, "old>new"},
		{"no state yet", tooltest.Call{Tool: "swap", Arguments: `{"key":"k","value":"new"}`}, ">new"},
		{"the context", tooltest.Call{Tool: "see", Info: abi.CallInfo{Step: "root/3"}}, `{"endless":true,"fresh":true,"later":true,"step":"root/3"}`},
		{"a schema of its own", tooltest.Call{Tool: "free", Arguments: `{"a":1,"b":[]}`}, "2"},
		{"a reply", tooltest.Call{Tool: "fail", Arguments: `{"how":"reply"}`}, "seen as an error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tooltest.Run(tt.call)
			if err != nil || r.Fail != nil || r.Text() != tt.want {
				t.Errorf("got %q, %+v, %v; want %q", r.Text(), r.Fail, err, tt.want)
			}
			if r.IsError != (tt.name == "a reply") {
				t.Errorf("is_error %v", r.IsError)
			}
		})
	}
}

func TestCallFails(t *testing.T) {
	how := func(h string) tooltest.Call {
		return tooltest.Call{Tool: "fail", Arguments: `{"how":"` + h + `"}`, KV: map[string][]byte{"k": []byte("before")}}
	}
	tests := []struct {
		name string
		call tooltest.Call
		want tooltest.Fail
	}{
		{"invalid args", how("invalid"), tooltest.Fail{Code: abi.FailInvalidArgs, RetryAfterMS: -1, Text: "no such thing"}},
		{"not found", how("not found"), tooltest.Fail{Code: abi.FailNotFound, RetryAfterMS: -1, Text: "nobody home"}},
		{"denied", how("denied"), tooltest.Fail{Code: abi.FailDenied, RetryAfterMS: -1, Text: "not yours"}},
		{"transient", how("transient"), tooltest.Fail{Code: abi.FailTransient, RetryAfterMS: 1500, Text: "busy"}},
		{"no time", how("transient without a time"), tooltest.Fail{Code: abi.FailTransient, RetryAfterMS: -1, Text: "busy"}},
		{"permanent", how("permanent"), tooltest.Fail{Code: abi.FailPermanent, RetryAfterMS: -1, Text: "never"}},
		{"plain error", how("plain"), tooltest.Fail{Code: abi.FailInternal, RetryAfterMS: -1, Text: "plain"}},
		{"panic", how("panic"), tooltest.Fail{Code: abi.FailInternal, RetryAfterMS: -1, Text: "panic: in the handler"}},
		{"a put is undone", how("after a put"), tooltest.Fail{Code: abi.FailPermanent, RetryAfterMS: -1, Text: "too late"}},
		{
			"a result that JSON lacks", how("no json"),
			tooltest.Fail{Code: abi.FailInternal, RetryAfterMS: -1, Text: "result of fail: json: unsupported value: NaN"},
		},
		{"a missing argument", tooltest.Call{Tool: "say"}, tooltest.Fail{Code: abi.FailInvalidArgs, RetryAfterMS: -1, Text: "what: missing"}},
		{
			"an argument not listed",
			tooltest.Call{Tool: "say", Arguments: `{"what":"boo"}`},
			tooltest.Fail{Code: abi.FailInvalidArgs, RetryAfterMS: -1, Text: `what: want one of "hello", "bye", have "boo"`},
		},
		{
			"no object",
			tooltest.Call{Tool: "say", Arguments: `[]`},
			tooltest.Fail{Code: abi.FailInvalidArgs, RetryAfterMS: -1, Text: "want an object, have an array"},
		},
		{"an unknown tool", tooltest.Call{Tool: "sing"}, tooltest.Fail{Code: abi.FailNotFound, RetryAfterMS: -1, Text: `no tool "sing" in this plugin`}},
		{
			"an op that is not granted",
			tooltest.Call{Tool: "swap", Arguments: `{"key":"k"}`, Denied: []string{abi.OpKVGet}},
			tooltest.Fail{Code: abi.FailDenied, RetryAfterMS: -1, Text: `kv.get/1 "k": not granted`},
		},
		{
			"an empty key",
			tooltest.Call{Tool: "swap", Arguments: `{"key":""}`},
			tooltest.Fail{Code: abi.FailInternal, RetryAfterMS: -1, Text: `kv.get/1 "": invalid_key`},
		},
		{
			"a value too large",
			tooltest.Call{Tool: "swap", Arguments: `{"key":"k","value":"` + strings.Repeat("x", abi.MaxKVValue+1) + `"}`},
			tooltest.Fail{Code: abi.FailPermanent, RetryAfterMS: -1, Text: `kv.put/1 "k": value_too_large`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tooltest.Run(tt.call)
			if err != nil {
				t.Fatal(err)
			}
			if r.Fail == nil || *r.Fail != tt.want {
				t.Errorf("got %+v, want %+v", r.Fail, tt.want)
			}
			if r.Output != nil || !reflect.DeepEqual(r.KV, tt.call.KV) {
				t.Errorf("a failed call left output %q and state %q", r.Output, r.KV)
			}
		})
	}
}

func TestErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("cause")
	err := tool.Transient(time.Second, "asking: %w", cause)
	var e *tool.Error
	if !errors.Is(err, cause) || !errors.As(err, &e) || e.Code != abi.FailTransient {
		t.Errorf("got %#v", err)
	}
	if got := (&tool.Error{Code: abi.FailDenied}).Error(); got != "denied" {
		t.Errorf("an error without a text: got %q, want denied", got)
	}
}
