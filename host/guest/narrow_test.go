package guest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/internal/testguest"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// TestNarrowingActsAtOnce: what the operator takes away is gone for attempts
// that go on with the module of before; what he adds is not for them.
func TestNarrowingActsAtOnce(t *testing.T) {
	r := newRig(t)
	url, rule, got := web(t)
	with := func(rules []egress.Rule, grants ...string) {
		r.apply(r.probe(func(s *guest.Source) { s.Grants, s.HTTP = grants, rules }))
	}
	asked := []request{op(abi.OpKVGet, `{"key":"k"}`, ""), op(abi.OpKVList, `{}`, ""), fetch("GET", url+"/v1"), fetch("GET", url+"/v2")}
	state := func(set loop.Toolset) (all string) {
		answers, _ := r.ask(set, nil, asked...)
		for _, a := range answers {
			if a.Errno != "" {
				all += "no "
				continue
			}
			all += fmt.Sprint(a.head(t).Status, " ")
		}
		return strings.TrimSpace(all)
	}
	with([]egress.Rule{rule}, abi.OpKVGet, abi.OpHTTPFetch)
	pinned := r.resolve()
	for _, tt := range []struct {
		name   string
		change func()
		want   string
	}{
		{"as it began", func() {}, "404 no 200 403"},
		{"another rule is there", func() {
			with([]egress.Rule{rule, {Scheme: "http", Host: rule.Host, Port: rule.Port, Private: true}}, abi.OpKVGet, abi.OpHTTPFetch)
		}, "404 no 200 403"},
		{"another op is granted", func() { with([]egress.Rule{rule}, abi.OpKVGet, abi.OpKVList, abi.OpHTTPFetch) }, "404 no 200 403"},
		{"one is taken away", func() { with([]egress.Rule{rule}, abi.OpHTTPFetch) }, "no no 200 403"},
		{"the rule is taken away", func() { with(nil, abi.OpHTTPFetch) }, "no no 403 403"},
		{"the plugin is dropped", func() { r.apply() }, "no no no no"},
	} {
		tt.change()
		if now := state(pinned); now != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, now, tt.want)
		}
	}
	if len(*got) != 4 {
		t.Errorf("the server got %d requests, want 4", len(*got))
	}
}

// TestNarrowingNeedsNoModule: what the operator takes away is gone although the
// module cannot be loaded again, for new attempts too.
func TestNarrowingNeedsNoModule(t *testing.T) {
	r := newRig(t)
	url, rule, got := web(t)
	source := r.probe(func(s *guest.Source) {
		s.Grants, s.HTTP = []string{abi.OpKVGet, abi.OpHTTPFetch}, []egress.Rule{rule}
	})
	r.apply(source)
	r.file("probe.wasm", []byte("half a copy"))
	source.Grants, source.HTTP = []string{abi.OpHTTPFetch}, []egress.Rule{{Scheme: "http", Host: rule.Host, Port: rule.Port, PathPrefix: "/v1/x", Private: true}}
	if err := r.catalog.Apply(t.Context(), []guest.Source{source}); err == nil {
		t.Fatal("half a module was loaded")
	}
	answers, _ := r.ask(r.resolve(), nil, op(abi.OpKVGet, `{"key":"k"}`, ""), fetch("GET", url+"/v1"), fetch("GET", url+"/v1/x"))
	if answers[0].Errno != abi.EPERM.Error() {
		t.Errorf("kv.get/1: errno %q, want it denied", answers[0].Errno)
	}
	for i, want := range []int{403, 200} {
		if h := answers[i+1].head(t); h.Status != want {
			t.Errorf("request %d: status %d, want %d", i, h.Status, want)
		}
	}
	if len(*got) != 1 {
		t.Errorf("the server got %q, want what both allow", *got)
	}
}

// TestPluginMovesToAnotherFile: it keeps its powers on the way.
func TestPluginMovesToAnotherFile(t *testing.T) {
	r := newRig(t)
	source := r.probe(func(s *guest.Source) { s.Grants = []string{abi.OpKVGet} })
	r.apply(source)
	set := r.resolve()
	source.File = r.file("probe-2.wasm", testguest.Build(t, "testdata/probe"))
	r.apply(source)
	answers, _ := r.ask(set, nil, op(abi.OpKVGet, `{"key":"k"}`, ""))
	if h := answers[0].head(t); h.Status != abi.StatusNoEntry {
		t.Errorf("kv.get/1: %+v, want no entry", h)
	}
}
