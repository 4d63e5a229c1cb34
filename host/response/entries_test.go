package response_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

func TestToolsRefused(t *testing.T) {
	headers := make([]string, 65)
	for i := range headers {
		headers[i] = `"h` + strings.Repeat("x", i) + `":"v"`
	}
	remote := func(rest string) string {
		return `[{"type":"mcp","server_label":"far","server_url":"https://x/mcp",` + rest + `}]`
	}
	for _, tc := range []refusal{
		{"tools no array", `{}`, "tools", "invalid_type"},
		{"too many tools", `[` + strings.Repeat(`{"type":"web_search"},`, 1024) + `{"type":"web_search"}]`, "tools", "array_above_max_length"},
		{"too many allowed_tools", remote(`"allowed_tools":[` + strings.Repeat(`"a",`, 1024) + `"a"]`), "tools[0].allowed_tools", "array_above_max_length"},
		{"tool no object", `[1]`, "tools[0]", "invalid_type"},
		{"tool without type", `[{"name":"f"}]`, "tools[0].type", "missing_required_parameter"},
		{"function without name", `[{"type":"function"}]`, "tools[0].name", "missing_required_parameter"},
		{"function name", `[{"type":"function","name":"a b"}]`, "tools[0].name", "invalid_value"},
		{"function name too long", `[{"type":"function","name":"` + strings.Repeat("a", 65) + `"}]`, "tools[0].name", "invalid_value"},
		{"parameters", `[{"type":"function","name":"a","parameters":"x"}]`, "tools[0].parameters", "invalid_type"},
		{"strict", `[{"type":"function","name":"a","strict":"x"}]`, "tools[0].strict", "invalid_type"},
		{"description", `[{"type":"function","name":"a","description":{}}]`, "tools[0].description", "invalid_type"},
		{"duplicate function", `[{"type":"function","name":"a"},{"type":"function","name":"a"}]`, "tools[1].name", "duplicate_tool_name"},
		{"function and custom tool", `[{"type":"function","name":"a"},{"type":"custom","name":"a"}]`, "tools[1].name", "duplicate_tool_name"},
		{"custom format", `[{"type":"custom","name":"a","format":{"type":"xml"}}]`, "tools[0].format.type", "invalid_value"},
		{"grammar without definition", `[{"type":"custom","name":"a","format":{"type":"grammar","syntax":"lark"}}]`, "tools[0].format.definition", "missing_required_parameter"},
		{"syntax of a grammar", `[{"type":"custom","name":"a","format":{"type":"grammar","syntax":"bnf","definition":"x"}}]`, "tools[0].format.syntax", "invalid_value"},
		{"server without label", `[{"type":"mcp","server_url":"https://x"}]`, "tools[0].server_label", "missing_required_parameter"},
		{"label", `[{"type":"mcp","server_label":"a b","server_url":"https://x"}]`, "tools[0].server_label", "invalid_value"},
		{"same label", `[{"type":"mcp","server_label":"a","server_url":"https://x"},{"type":"mcp","server_label":"a"}]`, "tools[1].server_label", "duplicate_server_label"},
		{"address", `[{"type":"mcp","server_label":"a","server_url":"ftp://x"}]`, "tools[0].server_url", "invalid_value"},
		{"address without host", `[{"type":"mcp","server_label":"a","server_url":"https:///x"}]`, "tools[0].server_url", "invalid_value"},
		{"password in an address", `[{"type":"mcp","server_label":"a","server_url":"https://u:p@x"}]`, "tools[0].server_url", "invalid_value"},
		{"authorization", remote(`"authorization":"a\r\nb"`), "tools[0].authorization", "invalid_value"},
		{"authorization of another type", remote(`"authorization":1`), "tools[0].authorization", "invalid_type"},
		{"headers no object", remote(`"headers":[]`), "tools[0].headers", "invalid_type"},
		{"header of another type", remote(`"headers":{"a":1}`), "tools[0].headers", "invalid_type"},
		{"header name", remote(`"headers":{"a b":"c"}`), "tools[0].headers", "invalid_value"},
		{"header value", remote(`"headers":{"a":"b\nc"}`), "tools[0].headers", "invalid_value"},
		{"too many headers", remote(`"headers":{` + strings.Join(headers, ",") + `}`), "tools[0].headers", "object_above_max_properties"},
		{"credentials for this host", `[{"type":"mcp","server_label":"p","authorization":"x"}]`, "tools[0].server_label", "invalid_value"},
		{"allowed_tools", remote(`"allowed_tools":"x"`), "tools[0].allowed_tools", "invalid_type"},
		{"allowed_tools by nature", remote(`"allowed_tools":{"read_only":true}`), "tools[0].allowed_tools.read_only", "unsupported_value"},
		{"NUL in allowed_tools", remote(`"allowed_tools":["\u0000"]`), "tools[0].allowed_tools", "invalid_value"},
		{"approval", remote(`"require_approval":"maybe"`), "tools[0].require_approval", "invalid_value"},
		{"approval of another type", remote(`"require_approval":7`), "tools[0].require_approval", "invalid_type"},
		{"approval filter", remote(`"require_approval":{"never":{"tool_names":"x"}}`), "tools[0].require_approval.never", "invalid_type"},
	} {
		tc.body = `{"model":"m","input":"x","tools":` + tc.body + `}`
		t.Run(tc.name, tc.check)
	}
}

func TestToolChoiceRefused(t *testing.T) {
	for _, tc := range []refusal{
		{"unknown mode", `"maybe"`, "tool_choice", "invalid_value"},
		{"of another type", `7`, "tool_choice", "invalid_type"},
		{"without type", `{}`, "tool_choice.type", "missing_required_parameter"},
		{"no kind of tool", `{"type":"hammer"}`, "tool_choice.type", "invalid_value"},
		{"function without name", `{"type":"function"}`, "tool_choice.name", "missing_required_parameter"},
		{"custom tool without name", `{"type":"custom"}`, "tool_choice.name", "missing_required_parameter"},
		{"server without label", `{"type":"mcp","name":"x"}`, "tool_choice.server_label", "missing_required_parameter"},
		{"mode of allowed tools", `{"type":"allowed_tools","mode":"none","tools":[{"type":"function","name":"f"}]}`, "tool_choice.mode", "invalid_value"},
		{"nothing allowed", `{"type":"allowed_tools","mode":"auto","tools":[]}`, "tool_choice.tools", "invalid_type"},
		{"allowed tool no object", `{"type":"allowed_tools","tools":["f"]}`, "tool_choice.tools[0]", "invalid_type"},
		{"allowed function without name", `{"type":"allowed_tools","tools":[{"type":"web_search"},{"type":"function"}]}`, "tool_choice.tools[1].name", "missing_required_parameter"},
		{"NUL in an allowed tool", `{"type":"allowed_tools","tools":[{"type":"function","name":"\u0000"}]}`, "tool_choice.tools[0].name", "invalid_value"},
		{"allowed tool of no kind", `{"type":"allowed_tools","tools":[{"type":"hammer"}]}`, "tool_choice.tools[0].type", "invalid_value"},
	} {
		tc.body = `{"model":"m","input":"x","tool_choice":` + tc.body + `}`
		t.Run(tc.name, tc.check)
	}
}

// toolsOf parses a request with these tools.
func toolsOf(t *testing.T, rest string) *response.Request {
	t.Helper()
	r, err := response.ParseRequest([]byte(`{"model":"m","input":"x",` + rest + `}`))
	if err != nil {
		t.Fatalf("ParseRequest: %v", err)
	}
	return r
}

// What names a tool in the words of Chat Completions is echoed in those of
// Responses.
func TestToolChoiceForms(t *testing.T) {
	for _, tc := range []struct{ sent, kept string }{
		{`"required"`, `"required"`},
		{`{"type":"function","name":"f"}`, `{"type":"function","name":"f"}`},
		{`{"type":"function","function":{"name":"f"}}`, `{"name":"f","type":"function"}`},
		{`{"type":"custom","name":"c"}`, `{"type":"custom","name":"c"}`},
		{`{"type":"mcp","server_label":"l"}`, `{"type":"mcp","server_label":"l"}`},
		{`{"type":"web_search_preview_2025_03_11"}`, `{"type":"web_search_preview_2025_03_11"}`},
		{`{"type":"acme:own"}`, `{"type":"acme:own"}`},
		{`{"type":"shiny"}`, `{"type":"shiny"}`}, // it is among the tools
		{`{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}`, `{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}`},
		{
			`{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}}`,
			`{"mode":"auto","tools":[{"name":"f","type":"function"}],"type":"allowed_tools"}`,
		},
	} {
		r := toolsOf(t, `"tools":[{"type":"shiny"}],"tool_choice":`+tc.sent)
		if string(r.ToolChoice) != tc.kept {
			t.Errorf("tool_choice %s: kept %s, want %s", tc.sent, r.ToolChoice, tc.kept)
		}
	}
}

func TestCustomTools(t *testing.T) {
	r := toolsOf(t, `"tools":[{"type":"custom","name":"shell","description":"Runs.","format":{"type":"grammar","syntax":"regex","definition":"[a-z]+"}},{"type":"custom","name":"plain"}]`)
	if len(r.Functions) != 2 || !r.Functions[0].Custom || !r.Functions[1].Custom {
		t.Fatalf("functions: got %+v, want two custom ones", r.Functions)
	}
	if f := r.Functions[0]; string(f.Format) != `{"type":"grammar","syntax":"regex","definition":"[a-z]+"}` || !strings.Contains(string(f.Raw), "[a-z]+") {
		t.Errorf("shell: got %+v, want its format, for those who cannot say it too", f)
	}
	want := `{"name":"plain","parameters":{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}}`
	if f := r.Functions[1]; f.Format != nil || string(f.Raw) != want {
		t.Errorf("plain: got %s %s, want %s", f.Format, f.Raw, want)
	}
	b, err := response.Brief{Request: r}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := response.DecodeBrief(b)
	if err != nil || !reflect.DeepEqual(again.Request.Functions, r.Functions) {
		t.Errorf("stored: got %+v, %v", again.Request.Functions, err)
	}
}

// Unserved tools are echoed, and not offered.
func TestUnservedToolsAreEchoed(t *testing.T) {
	tools := `[{"name":"ns","tools":[],"type":"namespace"},{"type":"web_search"},{"connector_id":"c","server_label":"drive","type":"mcp"}]`
	r := toolsOf(t, `"tools":`+tools)
	if string(r.ToolsRaw) != tools || r.Functions != nil || r.Servers != nil {
		t.Errorf("got %s, functions %v, servers %v", r.ToolsRaw, r.Functions, r.Servers)
	}
}

// Credentials of a remote server are in its entry alone: neither stored nor
// echoed.
func TestToolCredentialsAreKeptApart(t *testing.T) {
	r := toolsOf(t, `"tools":[{"type":"mcp","server_label":"far","server_url":"https://x/mcp","authorization":"SECRET","headers":{"a":"SECRET"}},
		{"type":"mcp","server_label":"drive","connector_id":"c","authorization":"SECRET"},
		{"type":"mcp","server_label":"p","require_approval":"never","allowed_tools":{"tool_names":["a"]}}]`)
	b, err := response.Brief{Request: r}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := response.NewStream(simID, simID.Time(), r, nil)
	s.Created(false)
	if strings.Contains(string(b), "SECRET") || strings.Contains(string(s.Response()), "SECRET") {
		t.Errorf("brief or object holds a credential: %s\n%s", b, s.Response())
	}
	want := []response.ServerRef{
		{Label: "far", URL: "https://x/mcp", Credentials: response.Credentials{Authorization: "SECRET", Headers: map[string]string{"a": "SECRET"}}},
		{Label: "p", Allowed: []string{"a"}, Approval: &response.Approval{}},
	}
	if !reflect.DeepEqual(r.Servers, want) {
		t.Errorf("servers: got %+v, want %+v", r.Servers, want)
	}
	if p := r.ServerParam("p"); p != "tools[2]" {
		t.Errorf("ServerParam: got %s, want tools[2]", p)
	}
}

func TestRequireApproval(t *testing.T) {
	for _, tc := range []struct {
		approval string
		needed   []bool // of a, b, c
	}{
		{`"always"`, []bool{true, true, true}},
		{`"never"`, []bool{false, false, false}},
		{`{"always":{"tool_names":["a"]}}`, []bool{true, false, false}},
		{`{"never":{"tool_names":["a"]}}`, []bool{false, true, true}},
		{`{"never":{"tool_names":["a","b"]},"always":{"tool_names":["b"]}}`, []bool{false, true, true}},
		{`{}`, []bool{true, true, true}},
	} {
		r := toolsOf(t, `"tools":[{"type":"mcp","server_label":"p","require_approval":`+tc.approval+`}]`)
		for i, name := range []string{"a", "b", "c"} {
			if got := r.Servers[0].Approval.Needed(name); got != tc.needed[i] {
				t.Errorf("require_approval %s: %s needs it: got %v", tc.approval, name, got)
			}
		}
	}
	if r := toolsOf(t, `"tools":[{"type":"mcp","server_label":"p"}]`); r.Servers[0].Approval != nil {
		t.Errorf("not said: got %+v", r.Servers[0].Approval)
	}
}

// A function as Chat Completions has it is taken, and echoed with the keys that
// clients want.
func TestFunctionForms(t *testing.T) {
	r := toolsOf(t, `"tools":[{"type":"function","function":{"name":"f","parameters":{}}},{"type":"function","name":"g","output_schema":{},"async":true}]`)
	want := `[{"description":null,"name":"f","parameters":{},"strict":null,"type":"function"},{"async":true,"description":null,"name":"g","output_schema":{},"parameters":null,"strict":null,"type":"function"}]`
	if string(r.ToolsRaw) != want {
		t.Errorf("echo: got %s, want %s", r.ToolsRaw, want)
	}
	raw, err := json.Marshal(r.Functions[1].Raw)
	if err != nil || string(raw) != `{"name":"g"}` {
		t.Errorf("for Chat Completions: got %s, %v", raw, err)
	}
}
