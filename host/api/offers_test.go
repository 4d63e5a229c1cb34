package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/response"
)

func TestOffers(t *testing.T) {
	tests := []struct {
		name, key, tools string
		want             string // name=plugin/tool …
	}{
		{"auto", "key-acme", ``, "calc__add=calc/add notes__add=notes/add list=notes/list"},
		{"auto, narrowed", "key-acme", `{"type":"mcp","server_label":"notes","allowed_tools":["list"]}`, "add=calc/add list=notes/list"},
		{"auto, none of a server", "key-acme", `{"type":"mcp","server_label":"notes","allowed_tools":[]}`, "add=calc/add"},
		{"auto, only what the tenant may call", "key-gamma", ``, "add=calc/add list=notes/list"},
		{"opt-in, nothing listed", "key-beta", ``, ""},
		{"opt-in, a server", "key-beta", `{"type":"mcp","server_label":"notes"}`, "add=notes/add list=notes/list"},
		{"opt-in, a tool", "key-beta", `{"type":"mcp","server_label":"calc","allowed_tools":["add"]}`, "add=calc/add"},
		{
			"opt-in, two entries", "key-beta",
			`{"type":"mcp","server_label":"notes","allowed_tools":["add"]},{"type":"mcp","server_label":"notes","allowed_tools":["list"]}`,
			"add=notes/add list=notes/list",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.key = tt.key
			bodies := make(chan []byte, 1)
			h.runner.script = func(r *fakeRun) {
				bodies <- r.Body
				hello(r)
			}
			if a := h.post("/v1/responses", `{"model":"m1","input":"hi","tools":[`+tt.tools+`]}`); a.status != 200 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			brief, err := response.DecodeBrief(<-bodies)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range brief.Offers {
				got = append(got, fmt.Sprintf("%s=%s/%s", o.Name, o.Plugin, o.Tool))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

// Names fit every upstream, differ, and are the same whenever they are made.
func TestOfferNames(t *testing.T) {
	plugin, long := strings.Repeat("p", 63), strings.Repeat("t", 64)
	h := newHost(t, func(o *api.Options) {
		o.Tools = fakeTools{
			tool(plugin, long), tool(plugin[:62], long), tool("q", long), tool("a", "b__c"), tool("d", "b__c"),
			tool("a__b", "c"), tool("e", "c"), tool("f", "only"),
		}
	})
	briefs := make(chan []byte, 2)
	h.runner.script = func(r *fakeRun) {
		briefs <- r.Body
		hello(r)
	}
	var before []response.Offer
	for range 2 {
		if a := h.post("/v1/responses", `{"model":"m1","input":"hi"}`); a.status != 200 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		brief, err := response.DecodeBrief(<-briefs)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, o := range brief.Offers {
			if seen[o.Name] || len(o.Name) > 64 {
				t.Errorf("%s/%s: got name %q of %d bytes, want one of its own, at most 64", o.Plugin, o.Tool, o.Name, len(o.Name))
			}
			seen[o.Name] = true
		}
		if len(seen) != 8 || !seen["only"] || !seen["d__b__c"] || !seen["e__c"] {
			t.Errorf("got names %v, want 8, shortened only where they must be", seen)
		}
		if before != nil && !slices.Equal(before, brief.Offers) {
			t.Errorf("got %v, then %v", before, brief.Offers)
		}
		before = brief.Offers
	}
}
