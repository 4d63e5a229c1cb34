package api_test

import (
	"fmt"
	"strings"
	"testing"

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
			job, err := response.DecodeJob(<-bodies)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range job.Offers {
				got = append(got, fmt.Sprintf("%s=%s/%s", o.Name, o.Plugin, o.Tool))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}
