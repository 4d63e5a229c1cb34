package response_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

func TestParseRequestRefuses(t *testing.T) {
	long := strings.Repeat("x", 513)
	many := make([]string, 17)
	for i := range many {
		many[i] = `"` + string(rune('a'+i)) + `":"v"`
	}
	for _, tc := range []struct{ name, body, param, code string }{
		{"not JSON", `{"model":`, "", "invalid_json"},
		{"not UTF-8", "{\"model\":\"m\xff\"}", "", "invalid_json"},
		{"trailing data", `{"model":"m","input":"x"}{}`, "", "invalid_json"},
		{"not an object", `[1]`, "", "invalid_type"},
		{"null", `null`, "", "invalid_type"},
		{"no model", `{"input":"x"}`, "model", "missing_required_parameter"},
		{"null model", `{"model":null,"input":"x"}`, "model", "missing_required_parameter"},
		{"model of another type", `{"model":1,"input":"x"}`, "model", "invalid_type"},
		{"NUL in model", `{"model":"m\u0000","input":"x"}`, "model", "invalid_value"},
		{"no input", `{"model":"m"}`, "input", "missing_required_parameter"},
		{"number as input", `{"model":"m","input":7}`, "input", "invalid_type"},
		{"item is no object", `{"model":"m","input":["x"]}`, "input[0]", "invalid_type"},
		{"item type no string", `{"model":"m","input":[{"type":5}]}`, "input[0].type", "invalid_type"},
		{"message without role", `{"model":"m","input":[{"content":"x"}]}`, "input[0].role", "missing_required_parameter"},
		{"unknown role", `{"model":"m","input":[{"role":"tool","content":"x"}]}`, "input[0].role", "invalid_value"},
		{"message without content", `{"model":"m","input":[{"role":"user"}]}`, "input[0].content", "missing_required_parameter"},
		{"content of another type", `{"model":"m","input":[{"role":"user","content":{}}]}`, "input[0].content", "invalid_type"},
		{"part that cannot be shown", `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_file","file_url":"http://x"}]}]}`, "input[0].content[1]", "unsupported_value"},
		{"call without call_id", `{"model":"m","input":[{"type":"function_call","name":"f","arguments":"{}"}]}`, "input[0].call_id", "missing_required_parameter"},
		{"NUL in call_id", `{"model":"m","input":[{"type":"function_call_output","call_id":"a\u0000","output":""}]}`, "input[0].call_id", "invalid_value"},
		{"item_reference", `{"model":"m","input":[{"type":"item_reference","id":"msg_1"}]}`, "input[0]", "unsupported_value"},
		{"stream of another type", `{"model":"m","input":"x","stream":"yes"}`, "stream", "invalid_type"},
		{"max_output_tokens below 16", `{"model":"m","input":"x","max_output_tokens":15}`, "max_output_tokens", "integer_below_min_value"},
		{"max_output_tokens no integer", `{"model":"m","input":"x","max_output_tokens":16.5}`, "max_output_tokens", "invalid_type"},
		{"max_output_tokens beyond any", `{"model":"m","input":"x","max_output_tokens":1e300}`, "max_output_tokens", "invalid_type"},
		{"negative max_tool_calls", `{"model":"m","input":"x","max_tool_calls":-1}`, "max_tool_calls", "integer_below_min_value"},
		{"temperature", `{"model":"m","input":"x","temperature":2.1}`, "temperature", "invalid_value"},
		{"top_logprobs", `{"model":"m","input":"x","top_logprobs":21}`, "top_logprobs", "integer_above_max_value"},
		{"metadata values", `{"model":"m","input":"x","metadata":{"a":1}}`, "metadata", "invalid_type"},
		{"metadata too long", `{"model":"m","input":"x","metadata":{"a":"` + long + `"}}`, "metadata", "string_above_max_length"},
		{"metadata too many", `{"model":"m","input":"x","metadata":{` + strings.Join(many, ",") + `}}`, "metadata", "object_above_max_properties"},
		{"NUL in metadata", `{"model":"m","input":"x","metadata":{"a":"\u0000"}}`, "metadata", "invalid_value"},
		{"unknown tier", `{"model":"m","input":"x","service_tier":"turbo"}`, "service_tier", "invalid_value"},
		{"background not stored", `{"model":"m","input":"x","background":true,"store":false}`, "background", "invalid_value"},
		{"conversation and previous", `{"model":"m","input":"x","conversation":"c","previous_response_id":"r"}`, "conversation", "mutually_exclusive_parameters"},
		{"conversation", `{"model":"m","input":"x","conversation":{"id":"c"}}`, "conversation", "unsupported_parameter"},
		{"text format", `{"model":"m","input":"x","text":{"format":{"type":"xml"}}}`, "text.format.type", "invalid_value"},
		{"schema without name", `{"model":"m","input":"x","text":{"format":{"type":"json_schema","schema":{}}}}`, "text.format.name", "missing_required_parameter"},
		{"tools no array", `{"model":"m","input":"x","tools":{}}`, "tools", "invalid_type"},
		{"tool no object", `{"model":"m","input":"x","tools":[1]}`, "tools[0]", "invalid_type"},
		{"function name", `{"model":"m","input":"x","tools":[{"type":"function","name":"a b"}]}`, "tools[0].name", "invalid_value"},
		{"duplicate function", `{"model":"m","input":"x","tools":[{"type":"function","name":"a"},{"type":"function","name":"a"}]}`, "tools[1].name", "duplicate_tool_name"},
		{"approval", `{"model":"m","input":"x","tools":[{"type":"mcp","server_label":"p","require_approval":"always"}]}`, "tools[0].require_approval", "unsupported_value"},
		{"tool_choice", `{"model":"m","input":"x","tool_choice":"maybe"}`, "tool_choice", "invalid_value"},
		{"forced function without name", `{"model":"m","input":"x","tool_choice":{"type":"function"}}`, "tool_choice.name", "missing_required_parameter"},
		{"nothing allowed", `{"model":"m","input":"x","tool_choice":{"type":"allowed_tools","mode":"auto","tools":[]}}`, "tool_choice.tools", "invalid_type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := response.ParseRequest([]byte(tc.body))
			var bad *response.BadRequest
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want a *BadRequest", err)
			}
			if bad.Param != tc.param || bad.Code != tc.code || bad.Message == "" {
				t.Errorf("got %q %q %q, want param %q code %q", bad.Param, bad.Code, bad.Message, tc.param, tc.code)
			}
		})
	}
}

func TestParseRequestAccepts(t *testing.T) {
	for _, tc := range []struct{ name, body string }{
		{"nulls are defaults", `{"model":"m","input":"x","stream":null,"store":null,"background":null,"tools":null,"tool_choice":null,"metadata":null,"max_output_tokens":null,"text":null,"reasoning":null,"service_tier":null,"temperature":null,"instructions":null,"previous_response_id":null,"conversation":null}`},
		{"unknown fields", `{"model":"m","input":"x","client_metadata":{"a":1},"generate":false,"access_programs":{"cyber":"standard"},"prompt_cache_options":{"prewarm":true}}`},
		{"a coding agent's first turn", `{"model":"m","stream":true,"store":false,"tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"summary":"auto"},"include":["reasoning.encrypted_content"],"prompt_cache_key":"k","client_metadata":{"session_id":"s"},"input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"d"}]}],"tools":[{"type":"function","name":"exec_command","strict":false,"parameters":{"type":"object"}},{"type":"namespace","name":"multi_agent_v1","tools":[]},{"type":"web_search"}]}`},
		{"hosted tool's receipts", `{"model":"m","input":[{"type":"web_search_call","id":"ws_1","status":"completed"},{"type":"acme:thing","id":"x"},{"role":"user","content":"x"}]}`},
		{"zeros", `{"model":"m","input":[],"max_tool_calls":0,"temperature":0,"top_p":0,"top_logprobs":0}`},
		{"NUL in text", `{"model":"m","input":"\u0000"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := response.ParseRequest([]byte(tc.body))
			if err != nil {
				t.Fatalf("ParseRequest: %v", err)
			}
			if tc.name == "nulls are defaults" && (r.Stream || !r.Store || r.Background) {
				t.Errorf("got stream %v store %v background %v, want false true false", r.Stream, r.Store, r.Background)
			}
		})
	}
}

// Credentials of a remote server are neither kept nor echoed.
func TestToolCredentialsAreDropped(t *testing.T) {
	r, err := response.ParseRequest([]byte(`{"model":"m","input":"x","tools":[{"type":"mcp","server_label":"far","server_url":"http://x","authorization":"SECRET","headers":{"a":"SECRET"}},{"type":"mcp","server_label":"p","require_approval":"never","allowed_tools":{"tool_names":["a"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := response.Brief{Request: r}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "SECRET") {
		t.Errorf("brief holds a credential: %s", b)
	}
	if len(r.Servers) != 1 || r.Servers[0].Label != "p" || len(r.Servers[0].Allowed) != 1 {
		t.Errorf("servers: got %+v, want p with one tool", r.Servers)
	}
}

func briefOf(t *testing.T, body string) response.Brief {
	t.Helper()
	r, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatalf("ParseRequest: %v", err)
	}
	return response.Brief{Request: r}
}

func TestCheckOutputs(t *testing.T) {
	call := `{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}`
	out := `{"type":"function_call_output","call_id":"c","output":"x"}`
	for _, tc := range []struct {
		name, context, input string
		ok                   bool
	}{
		{"call and output", ``, call + "," + out, true},
		{"output of an ancestor's call", call, out, true},
		{"output without call", ``, out, false},
		{"output before its call", ``, out + "," + call, false},
		{"two outputs of one call", call, out + "," + out, false},
		{"call without output", ``, call, false},
		{"ancestor's call without output", call, `{"role":"user","content":"x"}`, false},
		{"incomplete call", `{"type":"function_call","call_id":"c","name":"f","arguments":"{","status":"incomplete"}`, `{"role":"user","content":"x"}`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := briefOf(t, `{"model":"m","input":[`+tc.input+`]}`)
			if err := json.Unmarshal([]byte("["+tc.context+"]"), &j.Context); err != nil {
				t.Fatal(err)
			}
			err := response.CheckOutputs(j)
			var bad *response.BadRequest
			if tc.ok != (err == nil) || err != nil && !errors.As(err, &bad) {
				t.Errorf("got %v, want ok %v", err, tc.ok)
			}
		})
	}
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
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := briefOf(t, `{"model":"m","input":"x"`+tc.rest+`}`)
			j.Offers = offers
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
		{"id":"msg_0","type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"lost try"}]},
		{"id":"mcp_1","type":"mcp_call","server_label":"p","name":"t","arguments":"{}","output":"o","status":"completed"},
		{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{}","status":"incomplete"},
		{"id":"msg_1","type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"cut by length"}]}]}`))
	if err != nil {
		t.Fatal(err)
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
	chat, err := response.ChatRequest(child, nil, nil)
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

func TestDecodeBriefRefuses(t *testing.T) {
	for _, b := range []string{``, `{}`, `{"v":2,"request":{"model":"m","input":[]}}`, `{"v":1}`, `{"v":1,"request":{"input":[7]}}`} {
		if _, err := response.DecodeBrief([]byte(b)); err == nil {
			t.Errorf("DecodeBrief(%s): got no error", b)
		}
	}
}
