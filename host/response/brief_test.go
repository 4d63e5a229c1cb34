package response_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

func briefOf(t *testing.T, body string) response.Brief {
	t.Helper()
	r, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatalf("ParseRequest: %v", err)
	}
	return response.Brief{Request: r}
}

// L7: a client function named like a server tool is refused, so that neither is
// run with the other's arguments.
func TestCheckTools(t *testing.T) {
	offers := []response.Offer{{Name: "add", Plugin: "wasm", Tool: "add"}}
	for _, tc := range []struct {
		name, rest string
		ok         bool
	}{
		{"nothing", ``, true},
		{"clash", `,"tools":[{"type":"function","name":"add"}]`, false},
		{"forced offer", `,"tool_choice":{"type":"mcp","server_label":"wasm","name":"add"}`, true},
		{"forced offer as function", `,"tool_choice":{"type":"function","name":"add"}`, true},
		{"forced unknown", `,"tool_choice":{"type":"function","name":"sub"}`, false},
		{"forced unknown server", `,"tool_choice":{"type":"mcp","server_label":"far"}`, false},
		{"forced server of the client's choice", `,"tool_choice":{"type":"mcp","server_label":"remote","name":"x"}`, true},
		{"forced custom tool", `,"tools":[{"type":"custom","name":"shell"}],"tool_choice":{"type":"custom","name":"shell"}`, true},
		{"forced hosted tool", `,"tool_choice":{"type":"web_search"}`, true},
		{"allowed", `,"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"mcp","server_label":"wasm"},{"type":"web_search"}]}`, true},
		{"allowed unknown", `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"sub"}]}`, false},
		{"required", `,"tool_choice":"required"`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := briefOf(t, `{"model":"m","input":"x"`+tc.rest+`}`)
			j.Offers, j.Remotes = offers, []response.Remote{{Label: "remote", URL: "https://x"}}
			if err := response.CheckTools(j); (err == nil) != tc.ok {
				t.Errorf("got %v, want ok %v", err, tc.ok)
			}
		})
	}
}

// L14: what a response goes on from is its inputs and its outputs.
func TestAncestor(t *testing.T) {
	j := briefOf(t, `{"model":"m","instructions":"not inherited","input":"question \u0000"}`)
	if err := json.Unmarshal([]byte(`[{"role":"user","content":"older"}]`), &j.Context); err != nil {
		t.Fatal(err)
	}
	items, err := response.Ancestor(j, []byte(`{"status":"incomplete","output":[
		{"id":"rs_1","type":"reasoning","summary":[],"status":"completed"},
		{"id":"rs_2","type":"reasoning","summary":[],"encrypted_content":"sealed","status":"completed"},
		{"id":"msg_0","type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"lost try"}]},
		{"id":"mcp_1","type":"mcp_call","server_label":"p","name":"t","arguments":"{}","output":"o","status":"completed"},
		{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{}","status":"incomplete"},
		{"id":"msg_1","type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"cut by length"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if hasItem(items, "rs_1") {
		t.Error("reasoning that cannot be given back is in the context")
	}
	if !hasItem(items, "rs_2") {
		t.Error("sealed reasoning is not in the context")
	}
	child := briefOf(t, `{"model":"m","input":"next"}`)
	child.Context = items
	b, err := child.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if child, err = response.DecodeBrief(b); err != nil {
		t.Fatal(err)
	}
	chat, err := translate.ChatRequest(translate.Call{Brief: child})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"role":"user","content":"older"},{"role":"user","content":"question \u0000"},` +
		`{"role":"assistant","content":null,"tool_calls":[{"id":"mcp_1","type":"function","function":{"name":"t","arguments":"{}"}}]},` +
		`{"role":"tool","content":"o","tool_call_id":"mcp_1"},{"role":"assistant","content":"cut by length"},{"role":"user","content":"next"}]`
	if !strings.Contains(string(chat), want) {
		t.Errorf("messages:\n got %s\nwant %s", chat, want)
	}
}

func TestToolIsRequired(t *testing.T) {
	j := briefOf(t, `{"model":"m","input":"x","tool_choice":"required"}`)
	if response.CheckTools(j) == nil {
		t.Error("no tool: got no error")
	}
	j.Remotes = []response.Remote{{Label: "remote"}}
	if err := response.CheckTools(j); err != nil {
		t.Errorf("a server whose tools are not known yet: %v", err)
	}
}

func TestDecodeBriefRefuses(t *testing.T) {
	for _, b := range []string{``, `{}`, `{"v":0,"request":{"model":"m","input":[]}}`, `{"v":3,"request":{"model":"m","input":[]}}`, `{"v":1}`, `{"v":1,"request":{"input":[7]}}`} {
		if _, err := response.DecodeBrief([]byte(b)); err == nil {
			t.Errorf("DecodeBrief(%s): got no error", b)
		}
	}
}

// A brief that the first version of the host stored.
const firstBrief = `{"v":1,"request":{"model":"m","input":[{"type":"message","role":"user","content":"x"},{"type":"function_call_output","call_id":"c","output":"o"}],"instructions":"i","store":true,` +
	`"functions":[{"name":"f","raw":{"name":"f","strict":false}}],"servers":[{"server_label":"p","allowed_tools":null}],"tools":[{"type":"function","name":"f"}],` +
	`"tool_choice":"auto","max_output_tokens":16,"metadata":{"a":"b"},"service_tier":"flex"},` +
	`"context":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],"offers":[{"name":"add","plugin":"p","tool":"add"}]}`

func TestFirstVersionIsRead(t *testing.T) {
	j, err := response.DecodeBrief([]byte(firstBrief))
	if err != nil {
		t.Fatal(err)
	}
	if j.Request.Functions[0].Name != "f" || j.Request.Servers[0].Label != "p" || len(j.Request.Input) != 2 || len(j.Context) != 1 || j.Offers[0].Tool != "add" {
		t.Errorf("got %+v", j)
	}
	if err := response.CheckOutputs(j); err != nil {
		t.Error(err)
	}
}

// A host of the first version may run what does not need the second.
func TestVersionOfABrief(t *testing.T) {
	for want, j := range map[string]response.Brief{
		`{"v":1,`: briefOf(t, `{"model":"m","input":"x","tools":[{"type":"function","name":"f"},{"type":"mcp","server_label":"p","require_approval":"never"}]}`),
		`{"v":2,`: {Request: briefOf(t, `{"model":"m","input":"x"}`).Request, Conversation: "c"},
	} {
		b, err := j.Encode()
		if err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("got %.20s, %v, want %s", b, err, want)
		}
	}
	for _, tools := range []string{`{"type":"custom","name":"f"}`, `{"type":"mcp","server_label":"p","require_approval":"always"}`} {
		b, err := briefOf(t, `{"model":"m","input":"x","tools":[`+tools+`]}`).Encode()
		if err != nil || !strings.HasPrefix(string(b), `{"v":2,`) {
			t.Errorf("%s: got %.20s, %v, want version 2", tools, b, err)
		}
	}
}
