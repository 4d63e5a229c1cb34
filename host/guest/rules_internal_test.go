package guest

import (
	"reflect"
	"testing"

	"github.com/casemate/casemate/plugins/egress"
)

func TestBothRules(t *testing.T) {
	rule := func(host string, change ...func(*egress.Rule)) egress.Rule {
		r := egress.Rule{Host: host}
		for _, f := range change {
			f(&r)
		}
		return r
	}
	path := func(p string) func(*egress.Rule) { return func(r *egress.Rule) { r.PathPrefix = p } }
	methods := func(m ...string) func(*egress.Rule) { return func(r *egress.Rule) { r.Methods = m } }
	port := func(p int) func(*egress.Rule) { return func(r *egress.Rule) { r.Port = p } }
	private := func(r *egress.Rule) { r.Private = true }
	plain := func(r *egress.Rule) { r.Scheme = "http" }
	both := func(host, path string, methods ...string) *egress.Rule {
		return &egress.Rule{Scheme: "https", Host: host, Port: 443, PathPrefix: path, Methods: methods}
	}
	for _, tt := range []struct {
		name string
		a, b egress.Rule
		want *egress.Rule // nil: nothing is allowed by both
	}{
		{"the same", rule("a.example"), rule("A.example", port(443), path("/")), both("a.example", "/", "GET", "HEAD")},
		{"another host", rule("a.example"), rule("b.example"), nil},
		{"a host of a domain", rule("*.example"), rule("a.example"), both("a.example", "/", "GET", "HEAD")},
		{"a domain of a domain", rule("*.a.example"), rule("*.example"), both("*.a.example", "/", "GET", "HEAD")},
		{"a domain is not its own name", rule("*.a.example"), rule("a.example"), nil},
		{"a name that ends alike", rule("*.a.example"), rule("ba.example"), nil},
		{"another scheme", rule("a.example"), rule("a.example", plain, port(443)), nil},
		{"another port", rule("a.example"), rule("a.example", port(8443)), nil},
		{"a path below", rule("a.example", path("/v1")), rule("a.example", path("/v1/x/")), both("a.example", "/v1/x", "GET", "HEAD")},
		{"a path that begins alike", rule("a.example", path("/v1")), rule("a.example", path("/v1x")), nil},
		{"some methods", rule("a.example", methods("GET", "POST")), rule("a.example", methods("POST", "PUT")), both("a.example", "/", "POST")},
		{"no method", rule("a.example"), rule("a.example", methods("POST")), nil},
		{"private by one", rule("a.example", private), rule("a.example"), both("a.example", "/", "GET", "HEAD")},
	} {
		for _, got := range [][]egress.Rule{
			bothRules([]egress.Rule{tt.a}, []egress.Rule{tt.b}), bothRules([]egress.Rule{tt.b}, []egress.Rule{tt.a}),
		} {
			switch {
			case tt.want == nil && len(got) != 0:
				t.Errorf("%s: got %+v, want nothing", tt.name, got)
			case tt.want != nil && (len(got) != 1 || !reflect.DeepEqual(got[0], *tt.want)):
				t.Errorf("%s: got %+v, want %+v", tt.name, got, *tt.want)
			}
		}
	}
	if got := bothRules([]egress.Rule{rule("a.example", private)}, []egress.Rule{rule("a.example", private)}); len(got) != 1 || !got[0].Private {
		t.Errorf("private by both: got %+v, want a private one", got)
	}
}

func TestBothSecrets(t *testing.T) {
	before := []egress.Secret{
		{Name: "T", Host: "a.example", Header: "X-Key", Value: "old"}, {Name: "U", Host: "a.example", Header: "X-Key", Value: "u"},
	}
	now := []egress.Secret{
		{Name: "T", Host: "A.example", Header: "x-key", Value: "new"},
		{Name: "T", Host: "b.example", Header: "X-Key", Value: "added"},
		{Name: "T", Host: "a.example", Header: "X-Other", Value: "added"},
	}
	if got := bothSecrets(before, now); !reflect.DeepEqual(got, now[:1]) {
		t.Errorf("got %+v, want the one that was there, as it is now", got)
	}
}
