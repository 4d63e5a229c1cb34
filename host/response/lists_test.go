package response_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

func briefWith(t *testing.T, context, body string) response.Brief {
	t.Helper()
	req, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	b := response.Brief{Request: req}
	if context != "" {
		if err := json.Unmarshal([]byte(context), &b.Context); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func remote(label string, allowed ...string) response.Remote {
	return response.Remote{Label: label, Allowed: allowed, Approval: response.Approval{Named: []string{"sharp"}}}
}

func listStep(label, tools string) response.Step {
	return response.Step{Kind: response.ListTools, Plugin: label, State: response.Completed, Output: []byte(tools)}
}

// A remote tool keeps its own name if nothing else has it and upstreams take it.
func TestToolsOfNames(t *testing.T) {
	long := strings.Repeat("n", 70)
	for _, tt := range []struct {
		name    string
		body    string
		remotes []response.Remote
		lists   []string // by remote, as JSON
		want    string   // name=label/tool of the remote ones
	}{
		{"bare", "", []response.Remote{remote("far")}, []string{`[{"name":"x"}]`}, "x=far/x"},
		{"a local tool's", "", []response.Remote{remote("far")}, []string{`[{"name":"a"}]`}, "far__a=far/a"},
		{"a function's", `,"tools":[{"type":"function","name":"x"}]`, []response.Remote{remote("far")}, []string{`[{"name":"x"}]`}, "far__x=far/x"},
		{"another server's", "", []response.Remote{remote("far"), remote("near")}, []string{`[{"name":"x"}]`, `[{"name":"x"}]`}, "far__x=far/x near__x=near/x"},
		{"no upstream takes it", "", []response.Remote{remote("far")}, []string{`[{"name":"x.y/z"}]`}, "far__x_y_z=far/x.y/z"},
		{"too long", "", []response.Remote{remote("far")}, []string{`[{"name":"` + long + `"}]`}, "far__" + long[:59] + "=far/" + long},
		{"prefixed ones clash", "", []response.Remote{remote("far")}, []string{`[{"name":"x.y"},{"name":"x/y"},{"name":"x y"}]`}, "far__x_y=far/x.y far__x_y_2=far/x/y far__x_y_3=far/x y"},
		{"a prefixed one is taken", "", []response.Remote{remote("far")}, []string{`[{"name":"a"},{"name":"far__a"}]`}, "far__a_2=far/a far__a=far/far__a"},
		{"allowed", "", []response.Remote{remote("far", "y")}, []string{`[{"name":"x"},{"name":"y"}]`}, "y=far/y"},
		{"none allowed", "", []response.Remote{{Label: "far", Allowed: []string{}}}, []string{`[{"name":"x"}]`}, ""},
		{"twice and without a name", "", []response.Remote{remote("far")}, []string{`[{"name":"x"},{"name":"x"},{"name":""}]`}, "x=far/x"},
		{"not a list", "", []response.Remote{remote("far")}, []string{`{"tools":[]}`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := briefWith(t, "", `{"model":"m","input":"x"`+tt.body+`}`)
			b.Remotes = tt.remotes
			var steps []response.Step
			for i, l := range tt.lists {
				steps = append(steps, listStep(tt.remotes[i].Label, l))
			}
			local := []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}}
			var got []string
			for _, s := range response.ToolsOf(b, local, steps)[1:] {
				got = append(got, s.Name+"="+s.Plugin+"/"+s.Tool)
				if !s.Remote || s.Effects != "once" || len(s.Name) > 64 || s.Parameters[0] != '{' {
					t.Errorf("got %+v, want a remote tool", s)
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A list of the context serves until a step has listed again, well or not.
// A remote tool keeps its name, and a local tool's name stays its own, whether or
// not the host still has the local tool when another attempt asks.
func TestToolsOfArePinned(t *testing.T) {
	b := briefWith(t, "", `{"model":"m","input":"hi"}`)
	b.Remotes = []response.Remote{remote("far")}
	b.Offers = []response.Offer{{Name: "a", Plugin: "near", Tool: "a"}, {Name: "far__a", Plugin: "near", Tool: "far__a"}}
	steps := []response.Step{listStep("far", `[{"name":"a"}]`)}
	var local []response.ServerTool
	for i := range len(b.Offers) + 1 {
		tools := response.ToolsOf(b, local, steps)
		if got := tools[len(tools)-1]; got.Plugin != "far" || got.Name != "far__a_2" {
			t.Errorf("with %d local tools far/a is %q of %q, want far__a_2", len(local), got.Name, got.Plugin)
		}
		if i < len(b.Offers) {
			local = append(local, response.ServerTool{Offer: b.Offers[i]})
		}
	}
}

func TestToolsOfContext(t *testing.T) {
	b := briefWith(t, `[{"type":"mcp_list_tools","server_label":"far","tools":[{"name":"old"}],"error":null},
		{"type":"mcp_list_tools","server_label":"far","tools":[{"name":"x"},{"name":"sharp"}]},
		{"type":"mcp_list_tools","server_label":"far","tools":[],"error":"down"},
		{"type":"mcp_list_tools","server_label":"other","tools":[{"name":"o"}]}]`, `{"model":"m","input":"x"}`)
	b.Remotes = []response.Remote{remote("far")}
	failed := response.Step{Kind: response.ListTools, Plugin: "far", State: response.Failed, Verdict: response.Final}
	below := listStep("far", `[{"name":"below"}]`)
	below.Scope = "/1"
	for _, tt := range []struct {
		steps []response.Step
		want  string
	}{
		{nil, "[x:false sharp:true]"},
		{[]response.Step{listStep("far", `[{"name":"new"}]`)}, "[new:false]"},
		{[]response.Step{failed}, "[]"},
		{[]response.Step{below}, "[x:false sharp:true]"},
	} {
		got := []string{}
		for _, s := range response.ToolsOf(b, nil, tt.steps) {
			got = append(got, fmt.Sprintf("%s:%t", s.Name, s.Approval))
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("got %v, want %s", got, tt.want)
		}
	}
}

// The client may ask for approval of this host's tools too.
func TestToolsOfLocalApproval(t *testing.T) {
	b := briefWith(t, "", `{"model":"m","input":"x","tools":[{"type":"mcp","server_label":"p","require_approval":{"always":{"tool_names":["a"]}}}]}`)
	local := []response.ServerTool{
		{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}},
		{Offer: response.Offer{Name: "b", Plugin: "p", Tool: "b"}},
		{Offer: response.Offer{Name: "q__a", Plugin: "q", Tool: "a"}},
	}
	got := response.ToolsOf(b, local, nil)
	if !got[0].Approval || got[1].Approval || got[2].Approval || local[0].Approval {
		t.Errorf("got %+v, want approval of p/a alone, and what was given as it was", got)
	}
}

func TestLists(t *testing.T) {
	body := `{"model":"m","input":[{"role":"user","content":"x"},{"type":"mcp_list_tools","id":"l","server_label":"b","tools":[]}],"tools":[
		{"type":"mcp","server_label":"a"},{"type":"mcp","server_label":"b"},{"type":"mcp","server_label":"c"},{"type":"function","name":"f"}]}`
	b := briefWith(t, `[{"type":"mcp_list_tools","server_label":"c","tools":[],"error":"down"}]`, body)
	if got := response.Lists(b); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, want what is not listed yet", got)
	}
	tools := []response.ServerTool{
		{Offer: response.Offer{Name: "p__x", Plugin: "p", Tool: "x"}, Description: "d", Parameters: json.RawMessage(`{"a":1}`)},
		{Offer: response.Offer{Name: "y", Plugin: "p", Tool: "y"}},
		{Offer: response.Offer{Name: "z", Plugin: "q", Tool: "z"}},
	}
	want := `[{"name":"x","description":"d","input_schema":{"a":1}},{"name":"y","input_schema":{"type":"object"}}]`
	if got := string(response.ListOutput(response.LocalList(tools, "p"))); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := string(response.ListOutput(response.LocalList(tools, "none"))); got != "[]" {
		t.Errorf("got %s, want an empty list", got)
	}
}

// What the input approves runs once; what stands in the context is over.
func TestApprovalsAnswered(t *testing.T) {
	ask := func(id, tool string) string {
		return fmt.Sprintf(`{"type":"mcp_approval_request","id":%q,"server_label":"p","name":%q,"arguments":"{\"n\":1}"}`, id, tool)
	}
	answer := func(id string, approve bool) string {
		return fmt.Sprintf(`{"type":"mcp_approval_response","approval_request_id":%q,"approve":%t,"reason":"r"}`, id, approve)
	}
	call := func(id string) string {
		return fmt.Sprintf(`{"type":"mcp_call","id":"m","server_label":"p","name":"a","arguments":"{}","approval_request_id":%q}`, id)
	}
	tools := []response.ServerTool{{Offer: response.Offer{Name: "p__a", Plugin: "p", Tool: "a"}}}
	for _, tt := range []struct {
		name           string
		context, input []string
		want           string
	}{
		{"approved", []string{ask("1", "a")}, []string{answer("1", true)}, "1 p__a true"},
		{"denied", []string{ask("1", "a")}, []string{answer("1", false)}, "1 p__a false"},
		{"in the order of the answers", []string{ask("1", "a"), ask("2", "a")}, []string{answer("2", true), answer("1", true)}, "2 p__a true,1 p__a true"},
		{"the tool is gone", []string{ask("1", "b")}, []string{answer("1", true)}, "1  true"},
		{"all in the input", nil, []string{ask("1", "a"), answer("1", true)}, "1 p__a true"},
		{"called already", []string{ask("1", "a")}, []string{answer("1", true), call("1")}, ""},
		{"called in the context", []string{ask("1", "a"), answer("1", true), call("1")}, []string{answer("1", true)}, ""},
		{"an answer in the context", []string{ask("1", "a"), answer("1", true)}, []string{`{"role":"user","content":"x"}`}, ""},
		{"answered twice", []string{ask("1", "a")}, []string{answer("1", true), answer("1", false), answer("1", true)}, "1 p__a false"},
		{"nobody asked", nil, []string{answer("1", true)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b response.Brief
			b.Request = &response.Request{}
			for to, list := range map[*[]response.Item][]string{&b.Context: tt.context, &b.Request.Input: tt.input} {
				if err := json.Unmarshal([]byte("["+strings.Join(list, ",")+"]"), to); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, a := range response.Approvals(b, tools) {
				got = append(got, fmt.Sprintf("%s %s %t", a.RequestID, a.Call.Name, a.Approve))
				if a.Label != "p" || a.Tool == "" || a.Call.ID != a.RequestID || a.Call.Arguments != `{"n":1}` || a.Reason != "r" {
					t.Errorf("got %+v", a)
				}
			}
			if got := strings.Join(got, ","); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The call of a response without a model is its only step.
func TestNextDirect(t *testing.T) {
	v := response.View{
		Request: &response.Request{Model: "m"}, Attempt: 1, Direct: &response.Call{ID: "d", Name: "t", Arguments: "{}"},
		Tools: map[string]response.ServerTool{"t": {Offer: response.Offer{Plugin: "p", Tool: "t"}, Effects: "pure"}},
	}
	p := response.Next(v)
	if len(p.Run) != 1 || p.Run[0].CallID != "d" || p.Run[0].Plugin != "p" || p.Run[0].Kind != response.ToolCall {
		t.Fatalf("got %+v, want the call", p)
	}
	s := p.Run[0].Begin(1, response.ServerTool{})
	for _, end := range []response.Step{
		{State: response.Completed, Output: []byte("o")},
		{State: response.Failed, Verdict: response.Final, Class: queue.GuestError, Output: []byte("e")},
	} {
		s.State, s.Verdict, s.Class, s.Output = end.State, end.Verdict, end.Class, end.Output
		v.Steps = []response.Step{s}
		if p := response.Next(v); p.Action != response.Complete {
			t.Errorf("after %s: got %+v, want complete", s.State, p)
		}
	}
	v.Steps, v.Direct = nil, &response.Call{ID: "d", Name: "t", Arguments: "[]"}
	if p := response.Next(v); !reflect.DeepEqual(keys(p.Settle), []string{"/0 skipped"}) {
		t.Errorf("broken arguments: got %+v, want it skipped", p)
	}
}
