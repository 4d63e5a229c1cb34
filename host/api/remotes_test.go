package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/response"
)

// fakeRemotes allows servers of example.com that need no "Forbidden" header.
type fakeRemotes struct{}

func (fakeRemotes) Allowed(url string) error {
	if !strings.HasPrefix(url, "https://example.com/") {
		return errors.New("this address may not be used")
	}
	return nil
}

func (fakeRemotes) Check(_ string, c response.Credentials) error {
	if _, ok := c.Headers["Forbidden"]; ok {
		return errors.New("this header may not be set")
	}
	return nil
}

// B18: credentials are in the secret of the request and nowhere else.
func TestRemotes(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.Remotes = fakeRemotes{} })
	writes := h.submitted(nil)
	a := h.post("/v1/responses", `{"model":"m1","input":"hi","tools":[
		{"type":"mcp","server_label":"far","server_url":"https://example.com/mcp","server_description":"d","authorization":"SECRET1","headers":{"A":"SECRET2"},"allowed_tools":["a"]},
		{"type":"mcp","server_label":"near","server_url":"https://example.com/x","require_approval":"never"}]}`)
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w := <-writes
	brief := briefIn(t, w)
	want := []response.Remote{
		{Label: "far", URL: "https://example.com/mcp", Allowed: []string{"a"}, Approval: response.Approval{Always: true}, Description: "d"},
		{Label: "near", URL: "https://example.com/x"},
	}
	if !reflect.DeepEqual(brief.Remotes, want) {
		t.Errorf("remotes: got %+v, want %+v", brief.Remotes, want)
	}
	var secret response.Secret
	if err := json.Unmarshal(w.Insert.Secret, &secret); err != nil {
		t.Fatal(err)
	}
	if wantSecret := (response.Secret{"far": {Authorization: "SECRET1", Headers: map[string]string{"A": "SECRET2"}}}); !reflect.DeepEqual(secret, wantSecret) {
		t.Errorf("secret: got %+v", secret)
	}
	for where, text := range map[string]string{"answer": string(a.body), "body": string(w.Insert.Body), "events": fmt.Sprint(w.Events), "log": h.logged()} {
		if strings.Contains(text, "SECRET") {
			t.Errorf("the %s holds a credential: %s", where, text)
		}
	}
}

func TestRemotesRefused(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.Remotes = fakeRemotes{} })
	for _, tc := range []struct{ entry, code, param string }{
		{`"server_label":"far","server_url":"https://elsewhere.com/"`, "invalid_value", "tools[1].server_url"},
		{`"server_label":"far","server_url":"https://example.com/","headers":{"Forbidden":"x"}`, "invalid_value", "tools[1].headers"},
		{`"server_label":"calc","server_url":"https://example.com/"`, "duplicate_server_label", "tools[1].server_label"},
		{`"server_label":"agents","server_url":"https://example.com/"`, "duplicate_server_label", "tools[1].server_label"},
	} {
		h.post("/v1/responses", `{"model":"m1","input":"hi","tools":[{"type":"web_search"},{"type":"mcp",`+tc.entry+`}]}`).wantError(t, 400, tc.code, tc.param)
	}
	none := newHost(t)
	none.post("/v1/responses", `{"model":"m1","input":"hi","tools":[{"type":"mcp","server_label":"far","server_url":"https://example.com/"}]}`).
		wantError(t, 400, "unsupported_parameter", "tools[0].server_url")
}

// offersOf lists offers as name=plugin/tool.
func offersOf(offers []response.Offer) string {
	var list []string
	for _, o := range offers {
		list = append(list, fmt.Sprintf("%s=%s/%s", o.Name, o.Plugin, o.Tool))
	}
	return strings.Join(list, " ")
}

// Agents are offered like tools, and each takes along what it may call.
func TestAgentsAreOffered(t *testing.T) {
	agents := []response.Agent{
		{Name: "lead", Model: "m2", Instructions: "Lead.", Tools: []string{"agents/clerk", "notes"}, MaxModelCalls: 3},
		{Name: "clerk", Model: "m1", Tools: []string{"calc/add", "notes/add", "agents", "gone/tool"}, Parameters: json.RawMessage(`{"type":"object"}`)},
		{Name: "idle", Model: "m1"},
	}
	for _, tc := range []struct{ name, key, tools, offers, briefs string }{
		{
			"auto", "key-acme", ``,
			"clerk=agents/clerk idle=agents/idle lead=agents/lead calc__add=calc/add notes__add=notes/add list=notes/list",
			"clerk(clerk=agents/clerk idle=agents/idle lead=agents/lead calc__add=calc/add notes__add=notes/add) idle() lead(clerk=agents/clerk add=notes/add list=notes/list)",
		},
		{
			"one agent of opt-in, and what it leads to", "key-beta", `{"type":"mcp","server_label":"agents","allowed_tools":["lead"]}`,
			"lead=agents/lead",
			"lead(clerk=agents/clerk add=notes/add list=notes/list) clerk(clerk=agents/clerk idle=agents/idle lead=agents/lead calc__add=calc/add notes__add=notes/add) idle()",
		},
		{"opt-in, none", "key-beta", ``, "", ""},
		{"a tenant that may call no agent", "key-gamma", ``, "add=calc/add list=notes/list", ""},
		{
			"nobody approves inside", "key-beta",
			`{"type":"mcp","server_label":"agents","allowed_tools":["lead"]},{"type":"mcp","server_label":"notes","allowed_tools":["add"],"require_approval":"always"}`,
			"lead=agents/lead add=notes/add",
			"lead(clerk=agents/clerk) clerk(clerk=agents/clerk idle=agents/idle lead=agents/lead add=calc/add) idle()",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t, func(o *api.Options) { o.Agents = agents })
			h.key = tc.key
			writes := h.submitted(nil)
			if a := h.post("/v1/responses", `{"model":"m1","input":"hi","tools":[`+tc.tools+`]}`); a.status != 200 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			brief := briefIn(t, <-writes)
			var briefs []string
			for _, g := range brief.Agents {
				briefs = append(briefs, g.Name+"("+offersOf(g.Offers)+")")
				if g.Name == "lead" && (g.Model != "m2" || g.Instructions != "Lead." || g.MaxModelCalls != 3) {
					t.Errorf("lead: got %+v", g)
				}
			}
			if got := offersOf(brief.Offers); got != tc.offers {
				t.Errorf("offers:\n got %s\nwant %s", got, tc.offers)
			}
			if got := strings.Join(briefs, " "); got != tc.briefs {
				t.Errorf("agents:\n got %s\nwant %s", got, tc.briefs)
			}
		})
	}
}
