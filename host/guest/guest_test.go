package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/internal/testguest"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// state is a KV in memory.
type state map[string]string

func (s state) KVGet(_ context.Context, tenant, plugin, key string) ([]byte, bool, error) {
	v, ok := s[tenant+"/"+plugin+"/"+key]
	return []byte(v), ok, nil
}

func (s state) KVList(_ context.Context, tenant, plugin, prefix, after string, limit int) ([]string, error) {
	var keys []string
	for full := range s {
		key, ok := strings.CutPrefix(full, tenant+"/"+plugin+"/")
		if ok && strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), limit)], nil
}

func (s state) KVUsed(_ context.Context, tenant, plugin string) (keys int, size int64, err error) {
	for full, v := range s {
		if key, ok := strings.CutPrefix(full, tenant+"/"+plugin+"/"); ok {
			keys, size = keys+1, size+int64(len(key)+len(v))
		}
	}
	return keys, size, nil
}

// cacheDir keeps compiled modules for all tests of the process: to compile one
// takes seconds under the race detector.
var cacheDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "casemate-guest-")
	if err != nil {
		panic(err)
	}
	cacheDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

type rig struct {
	*testing.T
	catalog *guest.Catalog
	decider *policy.Decider
	state   state
	dir     string
	log     bytes.Buffer
	audit   bytes.Buffer
	refused []refusal
	limits  plugins.Limits // of tenant acme, for every plugin
}

// refusal is a capability call that was refused.
type refusal struct{ file, op, reason string }

func newRig(t *testing.T) *rig {
	t.Helper()
	m, err := plugins.New(t.Context(), plugins.Options{CacheDir: cacheDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	r := &rig{T: t, decider: policy.New(nil), state: state{}, dir: t.TempDir()}
	r.catalog = guest.New(m, r.state, r.decider, guest.Options{
		Logger: hclog.New(&hclog.LoggerOptions{Output: &r.log, Level: hclog.Trace}),
		Audit:  hclog.New(&hclog.LoggerOptions{Name: "audit", Output: &r.audit, JSONFormat: true}),
		Refused: func(file, op, reason string) {
			r.refused = append(r.refused, refusal{filepath.Base(file), op, reason})
		},
		TenantLimits: func(tenant, _ string) plugins.Limits {
			if tenant != "acme" {
				return plugins.Limits{}
			}
			return r.limits
		},
	})
	return r
}

// file writes a module file and returns its path.
func (r *rig) file(name string, wasm []byte) string {
	r.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, wasm, 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

func (r *rig) apply(sources ...guest.Source) {
	r.Helper()
	if err := r.catalog.Apply(r.Context(), sources); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) tool(folder string, grants ...string) guest.Source {
	r.Helper()
	return guest.Source{
		Role: guest.Tool, File: r.file(filepath.Base(folder)+".wasm", testguest.Build(r, folder)), Grants: grants,
	}
}

// call calls a tool by name.
func (r *rig) call(name, arguments string) loop.ToolResult {
	r.Helper()
	set := r.catalog.Resolve("acme", []response.Offer{{Name: name, Plugin: name, Tool: name}})
	defer set.Release()
	if len(set.Tools()) != 1 {
		r.Fatalf("%d tools for %s; want 1", len(set.Tools()), name)
	}
	return set.Call(r.Context(), loop.ToolCall{
		Tool: set.Tools()[0], Arguments: []byte(arguments),
		Info: abi.CallInfo{ResponseID: "resp_1", Step: "/1", Attempt: 1, IdempotencyKey: "1//1", Tenant: "acme", Model: "m"},
	})
}

func TestTool(t *testing.T) {
	r := newRig(t)
	r.apply(r.tool("../../examples/tools/calculator"))
	tools := r.catalog.Granted()
	if len(tools) != 1 || tools[0].Name != "calculator" || tools[0].Effects != "pure" || tools[0].Generation == "" {
		t.Fatalf("granted %+v; want the pure calculator with its digest", tools)
	}
	if res := r.call("calculator", `{"expression":"6*7"}`); res.Class != queue.OK || res.Output != "42" {
		t.Errorf("6*7: %s %q; want ok 42", res.Class, res.Output)
	}
	res := r.call("calculator", `{"expression":"6*"}`)
	if res.Class != queue.GuestError || res.Code != "invalid_args" || !strings.Contains(res.Output, "invalid_args") {
		t.Errorf("6*: %+v; want an invalid_args the model is told", res)
	}
}

func TestCheckArguments(t *testing.T) {
	r := newRig(t)
	r.apply(r.tool("../../examples/tools/calculator"))
	set := r.catalog.Resolve("acme", []response.Offer{{Name: "c", Plugin: "calculator", Tool: "calculator"}})
	defer set.Release()
	tool := set.Tools()[0]
	if err := set.Check(tool, []byte(`{"expression":"1"}`)); err != nil {
		t.Errorf("good arguments: %v", err)
	}
	for _, bad := range []string{`{}`, `{"expression":1}`, `[]`} {
		if set.Check(tool, []byte(bad)) == nil {
			t.Errorf("arguments %s were accepted", bad)
		}
	}
	deep := `{"expression":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`
	if err := set.Check(tool, []byte(deep)); err == nil || !strings.Contains(err.Error(), "arguments: nested deeper than 64 levels") {
		t.Errorf("arguments of 100 levels: %v; want the most", err)
	}
}

func TestStateNeedsItsGrant(t *testing.T) {
	r := newRig(t)
	r.apply(r.tool("../../examples/tools/notes", abi.OpKVGet, abi.OpKVPut))
	res := r.call("notes", `{"op":"add","text":"milk"}`)
	if res.Class != queue.OK || len(res.KV) != 1 || res.KV[0].Plugin != "notes" {
		t.Fatalf("add: %+v; want one write to its own state", res)
	}
	if len(r.state) != 0 {
		t.Error("the call wrote before its step was settled")
	}
	r.state["acme/notes/"+res.KV[0].Key] = string(res.KV[0].Value)
	if res := r.call("notes", `{"op":"list"}`); res.Class != queue.OK || !strings.Contains(res.Output, "milk") {
		t.Errorf("list: %+v; want the note", res)
	}
	r.apply(r.tool("../../examples/tools/notes")) // the same module, nothing granted
	if res := r.call("notes", `{"op":"add","text":"milk"}`); res.Class == queue.OK || len(res.KV) != 0 {
		t.Errorf("without the grant: %+v; want a failure and no write", res)
	}
}

func TestResolveLeavesOutWhatIsGone(t *testing.T) {
	r := newRig(t)
	r.apply(r.tool("../../examples/tools/calculator"))
	set := r.catalog.Resolve("acme", []response.Offer{
		{Name: "calculator", Plugin: "calculator", Tool: "calculator"},
		{Name: "x", Plugin: "gone", Tool: "x"},
		{Name: "y", Plugin: "calculator", Tool: "gone"},
	})
	defer set.Release()
	if n := len(set.Tools()); n != 1 {
		t.Errorf("%d tools; want the one that is loaded", n)
	}
}

// TestPinnedToolOutlivesItsModule checks that an attempt ends on the module it
// began with.
func TestPinnedToolOutlivesItsModule(t *testing.T) {
	r := newRig(t)
	calculator := r.tool("../../examples/tools/calculator")
	r.apply(calculator)
	set := r.catalog.Resolve("acme", []response.Offer{{Name: "calculator", Plugin: "calculator", Tool: "calculator"}})
	r.apply() // dropped
	if n := len(r.catalog.Granted()); n != 0 {
		t.Errorf("%d tools on offer; want none", n)
	}
	res := set.Call(t.Context(), loop.ToolCall{Tool: set.Tools()[0], Arguments: []byte(`{"expression":"2+2"}`)})
	if res.Class != queue.OK || res.Output != "4" {
		t.Errorf("%s %q; want ok 4 from the module that was dropped", res.Class, res.Output)
	}
	set.Release()
}

func question(t *testing.T) abi.RetryQuestion {
	t.Helper()
	return abi.RetryQuestion{
		V: 1, Seed: 7, Step: abi.StepInfo{Kind: "model_call"}, MaxFailures: 5,
		Outcome: abi.FailedTry{Class: "upstream_status", Status: 503, RetryAfterMS: -1},
	}
}

func TestPolicySwap(t *testing.T) {
	r := newRig(t)
	usual, eager := testguest.Build(t, "../../policies/retry-default"), testguest.Build(t, "../../policies/retry-eager")
	file := r.file("retry.wasm", usual)
	source := guest.Source{Role: guest.Retry, File: file}
	decide := func() policy.Decision {
		_, d := r.decider.Retry(t.Context(), question(t), policy.Bounds{MaxFailures: 5, Began: true})
		return d
	}
	if d := decide(); d.Generation != policy.Builtin {
		t.Errorf("before any module: %s; want the built-in policy", d.Generation)
	}
	r.apply(source)
	first := decide()
	if first.Generation == policy.Builtin || first.Fallback != "" {
		t.Fatalf("decided by %s, fallback %q; want the module", first.Generation, first.Fallback)
	}
	r.file("retry.wasm", eager)
	if err := r.catalog.Refresh(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	second := decide()
	if second.Generation == first.Generation || second.Fallback != "" {
		t.Errorf("decided by %s after the swap; want the new module", second.Generation)
	}
	for name, rubbish := range map[string][]byte{
		"not Wasm": []byte("rubbish"), "another kind": testguest.Build(t, "../../examples/tools/calculator"),
	} {
		r.file("retry.wasm", rubbish)
		if err := r.catalog.Refresh(t.Context(), file); err == nil {
			t.Errorf("%s was accepted as a retry policy", name)
		}
		if d := decide(); d.Generation != second.Generation {
			t.Errorf("after %s: decided by %s; want the last good module", name, d.Generation)
		}
		if c := r.catalog.Conditions()[0]; c.Err == nil || c.Digest != second.Generation {
			t.Errorf("condition %+v; want the error and the module in use", c)
		}
	}
	r.apply() // back to the built-in policy
	if d := decide(); d.Generation != policy.Builtin {
		t.Errorf("without a source: %s; want the built-in policy", d.Generation)
	}
}

// TestApplyRenamedPolicy names another file for a policy: while that cannot be
// loaded, the module of the file before stays.
func TestApplyRenamedPolicy(t *testing.T) {
	r := newRig(t)
	decide := func() string {
		_, d := r.decider.Retry(t.Context(), question(t), policy.Bounds{MaxFailures: 5, Began: true})
		return d.Generation
	}
	condition := func() guest.Condition {
		t.Helper()
		all := r.catalog.Conditions()
		if len(all) != 1 {
			t.Fatalf("conditions %+v; want one", all)
		}
		return all[0]
	}
	r.apply(guest.Source{Role: guest.Retry, File: r.file("a.wasm", testguest.Build(t, "../../policies/retry-default"))})
	first := decide()
	if first == policy.Builtin {
		t.Fatal("decided by the built-in policy; want the module")
	}
	renamed := guest.Source{Role: guest.Retry, File: r.file("b.wasm", []byte("rubbish"))}
	if err := r.catalog.Apply(t.Context(), []guest.Source{renamed}); err == nil {
		t.Error("a broken file was accepted")
	}
	if got := decide(); got != first {
		t.Errorf("decided by %s; want the policy before", got)
	}
	if c := condition(); c.Source.File != renamed.File || c.Err == nil || c.Digest != first {
		t.Errorf("condition %+v; want the error of the new file and the module in use", c)
	}
	r.file("b.wasm", testguest.Build(t, "../../policies/retry-eager"))
	if err := r.catalog.Refresh(t.Context(), renamed.File); err != nil {
		t.Fatal(err)
	}
	second := decide()
	if c := condition(); second == first || second == policy.Builtin || c.Err != nil || c.Digest != second {
		t.Errorf("decided by %s, condition %+v; want the mended file", second, c)
	}
}

// TestApplyRenamedTool gives a tool's file another name: the plugin is neither
// refused for its own name nor ever missing.
func TestApplyRenamedTool(t *testing.T) {
	r := newRig(t)
	calculator := r.tool("../../examples/tools/calculator")
	r.apply(calculator)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if n := len(r.catalog.Granted()); n != 1 {
				t.Errorf("%d tools on offer during the change; want 1", n)
				return
			}
		}
	})
	renamed := guest.Source{Role: guest.Tool, File: r.file("renamed.wasm", testguest.Build(t, "../../examples/tools/calculator"))}
	r.apply(renamed)
	cancel()
	wg.Wait()
	if all := r.catalog.Conditions(); len(all) != 1 || all[0].Source.File != renamed.File || all[0].Err != nil {
		t.Errorf("conditions %+v; want the new file alone", all)
	}
	if res := r.call("calculator", `{"expression":"6*7"}`); res.Class != queue.OK || res.Output != "42" {
		t.Errorf("6*7: %s %q; want ok 42", res.Class, res.Output)
	}
}

// TestNameOfAgents refuses a tool plugin whose calls would count as agents'.
func TestNameOfAgents(t *testing.T) {
	r := newRig(t)
	err := r.catalog.Apply(t.Context(), []guest.Source{r.tool("testdata/agents")})
	if err == nil || !strings.Contains(err.Error(), `"agents"`) || !strings.Contains(err.Error(), "rename it") {
		t.Errorf("got %v, want that it is to be renamed", err)
	}
	if n := len(r.catalog.Granted()); n != 0 {
		t.Errorf("%d of its tools are on offer", n)
	}
}

// TestClassesAreKnown: a class of package plugins becomes one of the host's as
// it is.
func TestClassesAreKnown(t *testing.T) {
	for _, c := range []plugins.Class{
		plugins.OK, plugins.Trap, plugins.Fuel, plugins.Deadline, plugins.Memory, plugins.Depth, plugins.Output,
		plugins.Denied, plugins.Failed, plugins.InvalidOutput, plugins.Unavailable, plugins.Throttled,
		plugins.Canceled, plugins.HostError,
	} {
		if !slices.Contains(queue.Classes(), queue.Class(c)) {
			t.Errorf("%s is no class of the host", c)
		}
	}
}

// TestSwapWhileAsked replaces a policy while many goroutines ask it: the swap
// itself never makes the built-in policy answer. (A machine that is busy
// compiling may make a module overrun its 100 ms.)
func TestSwapWhileAsked(t *testing.T) {
	r := newRig(t)
	modules := [][]byte{testguest.Build(t, "../../policies/retry-default"), testguest.Build(t, "../../policies/retry-eager")}
	file := r.file("retry.wasm", modules[0])
	r.apply(guest.Source{Role: guest.Retry, File: file})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, d := r.decider.Retry(t.Context(), question(t), policy.Bounds{MaxFailures: 5, Began: true})
				if d.Fallback != "" && d.Fallback != string(queue.GuestDeadline) {
					t.Errorf("decided by %s: %s", d.Generation, d.Fallback)
					return
				}
			}
		})
	}
	for i := range 3 {
		r.file("retry.wasm", modules[(i+1)%2])
		if err := r.catalog.Refresh(t.Context(), file); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestRefused(t *testing.T) {
	r := newRig(t)
	calculator := r.tool("../../examples/tools/calculator")
	twice := guest.Source{Role: guest.Tool, File: r.file("copy.wasm", testguest.Build(t, "../../examples/tools/calculator"))}
	tests := []struct {
		name    string
		sources []guest.Source
		want    string
	}{
		{"no such file", []guest.Source{{Role: guest.Tool, File: "nowhere.wasm"}}, "nowhere.wasm"},
		{"two of one name", []guest.Source{calculator, twice}, "already loaded"},
		{"a tool as a route policy", []guest.Source{{Role: guest.Route, File: calculator.File}}, "configured as route"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := r.catalog.Apply(t.Context(), tt.sources)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply: %v; want %q", err, tt.want)
			}
		})
	}
}

func TestReadResult(t *testing.T) {
	// What a guest answers is checked by its shape: see testdata of plugins for
	// guests that answer rubbish; here only that JSON goes to the model as text.
	r := newRig(t)
	r.apply(r.tool("../../examples/tools/notes", abi.OpKVGet, abi.OpKVPut))
	res := r.call("notes", `{"op":"list"}`)
	var v struct{ Notes []string }
	if err := json.Unmarshal([]byte(res.Output), &v); err != nil || res.Class != queue.OK {
		t.Errorf("%s %q: %v; want JSON text", res.Class, res.Output, err)
	}
}
