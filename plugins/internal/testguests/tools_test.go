package testguests_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/internal/testguests"
	"github.com/casemate/casemate/sdk/abi"
)

// manager and loaded are for all tests: compiling a guest takes long. Tests do
// not run in parallel.
var (
	manager *plugins.Manager
	loaded  = map[string]*plugins.Plugin{}
)

func TestMain(m *testing.M) {
	ctx := context.Background()
	var err error
	if manager, err = plugins.New(ctx, plugins.Options{}); err != nil {
		log.Fatal(err)
	}
	status := m.Run()
	if err := manager.Close(ctx); err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// load loads the guest in a language.
func load(t *testing.T, language string) *plugins.Plugin {
	t.Helper()
	if p, ok := loaded[language]; ok {
		return p
	}
	p, err := manager.Load(t.Context(), language, testguests.Wasm(t, language))
	if err != nil {
		t.Fatal(err)
	}
	loaded[language] = p
	return p
}

func call(t *testing.T, p *plugins.Plugin, tool, arguments string, limits plugins.Limits) plugins.Result {
	t.Helper()
	in := fmt.Appendf(nil, `{"call":{"arguments":{"a":9},"tool":"no"}, "v":1,"tool":%q,"arguments":%s}`, tool, arguments)
	return p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: in, Limits: limits})
}

// everyLanguage runs f for each guest.
func everyLanguage(t *testing.T, f func(t *testing.T, p *plugins.Plugin)) {
	for _, language := range testguests.Languages() {
		t.Run(language, func(t *testing.T) { f(t, load(t, language)) })
	}
}

func TestAnswers(t *testing.T) {
	text := strings.Repeat("\u00e9\\\"x", 1000)
	quoted, err := json.Marshal(map[string]any{"tool": text, "n": []any{1, "]}", nil}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ tool, arguments, want string }{
		{"count", `{}`, `{"memory":1,"global":1}`},
		{"grow", `{}`, `{"memory":1,"global":1}`},
		{"echo", `{"a": [ 1, {"b":"}\""} ]}`, `{"a":[1,{"b":"}\""}]}`},
		{"echo", string(quoted), string(quoted)},
		{"sum", `{"a":1,"b":2}`, `3`},
		{"sum", ` { "b" : -40000000000 , "x" : {"a":5,"s":"\"a\":6"} , "a" : 7 } `, `-39999999993`},
		{"sum", `{"a":-1,"b":1}`, `0`},
		{"fib", `{"n":20}`, `6765`},
		{"fib", `{"n":0}`, `0`},
	}
	for _, n := range []int{0, 1, 55, 56, 63, 64, 65, 250, 251, 252, 10_000} {
		tests = append(tests, struct{ tool, arguments, want string }{"sha256", fmt.Sprintf(`{"n":%d}`, n), digest(n)})
	}
	everyLanguage(t, func(t *testing.T, p *plugins.Plugin) {
		for _, tt := range tests {
			res := call(t, p, tt.tool, tt.arguments, plugins.Limits{})
			if res.Class != plugins.OK {
				t.Errorf("%s %.60s: got %s (%+v), want ok", tt.tool, tt.arguments, res.Class, res.Fail)
				continue
			}
			var out abi.ToolResult
			if err := json.Unmarshal(res.Output, &out); err != nil {
				t.Fatalf("%s %.60s: %v", tt.tool, tt.arguments, err)
			}
			if out.V != abi.Version || !reflect.DeepEqual(parsed(t, out.Output), parsed(t, []byte(tt.want))) {
				t.Errorf("%s %.60s: got %.60s, want output %.60s", tt.tool, tt.arguments, res.Output, tt.want)
			}
		}
	})
}

// digest is what sha256 of n answers.
func digest(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func parsed(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func TestEnds(t *testing.T) {
	tests := []struct {
		tool, arguments string
		limits          plugins.Limits
		want            plugins.Class
		code            abi.FailCode // of a Failed call
	}{
		{"trap", `{}`, plugins.Limits{}, plugins.Trap, 0},
		{"spin", `{}`, plugins.Limits{Wall: 50 * time.Millisecond, Fuel: 1 << 40}, plugins.Deadline, 0},
		{"sum", `{"a":1}`, plugins.Limits{}, plugins.Failed, abi.FailInvalidArgs},
		{"sum", `{"a":1,"b":"2"}`, plugins.Limits{}, plugins.Failed, abi.FailInvalidArgs},
		{"fib", `{"n":-1}`, plugins.Limits{}, plugins.Failed, abi.FailInvalidArgs},
		{"sha256", `{}`, plugins.Limits{}, plugins.Failed, abi.FailInvalidArgs},
		{"none", `{"n":1}`, plugins.Limits{}, plugins.Failed, abi.FailNotFound},
	}
	everyLanguage(t, func(t *testing.T, p *plugins.Plugin) {
		for _, tt := range tests {
			res := call(t, p, tt.tool, tt.arguments, tt.limits)
			if res.Class != tt.want {
				t.Errorf("%s %s: got %s %s, want %s", tt.tool, tt.arguments, res.Class, res.Detail, tt.want)
			}
			if tt.code != 0 && (res.Fail == nil || res.Fail.Code != tt.code) {
				t.Errorf("%s %s: got %+v, want code %d", tt.tool, tt.arguments, res.Fail, tt.code)
			}
		}
	})
}

// TestSameTools guards that a figure of one language can be held against that
// of another.
func TestSameTools(t *testing.T) {
	want := load(t, testguests.Go).Descriptor()
	want.Tools = slices.DeleteFunc(slices.Clone(want.Tools), func(d abi.ToolDescriptor) bool { return d.Name == "leave" })
	everyLanguage(t, func(t *testing.T, p *plugins.Plugin) {
		got := p.Descriptor()
		if name := "pristine-" + strings.TrimPrefix(t.Name(), "TestSameTools/"); got.Name != name {
			t.Errorf("name: got %q, want %q", got.Name, name)
		}
		if got.Name == want.Name {
			return // what the others are held against
		}
		got.Name = want.Name
		if !reflect.DeepEqual(got, want) {
			t.Errorf("descriptor: got %+v, want %+v", got, want)
		}
	})
}

func TestLeave(t *testing.T) {
	p := load(t, testguests.Go)
	res := call(t, p, "leave", `{}`, plugins.Limits{})
	if res.Class != plugins.OK || !strings.Contains(string(res.Output), `"output":{`) {
		t.Errorf("got %s %s, want ok", res.Class, res.Output)
	}
}
