package response_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// refusal is a body that ParseRequest must refuse.
type refusal struct{ name, body, param, code string }

func (r refusal) check(t *testing.T) {
	t.Helper()
	_, err := response.ParseRequest([]byte(r.body))
	var bad *response.BadRequest
	if !errors.As(err, &bad) {
		t.Fatalf("got %v, want a *BadRequest", err)
	}
	if bad.Param != r.param || bad.Code != r.code || bad.Message == "" {
		t.Errorf("got %q %q %q, want param %q code %q", bad.Param, bad.Code, bad.Message, r.param, r.code)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for _, tc := range []refusal{
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
		{"a prompt is no input", `{"model":"m","prompt":{"id":"p"}}`, "input", "missing_required_parameter"},
		{"number as input", `{"model":"m","input":7}`, "input", "invalid_type"},
		{"input too long", `{"model":"m","input":"` + strings.Repeat("x", 10485761) + `"}`, "input", "string_above_max_length"},
	} {
		t.Run(tc.name, tc.check)
	}
}

// Each setting has its own limits, and a mistake names it.
func TestSettingsRefused(t *testing.T) {
	many := make([]string, 17)
	for i := range many {
		many[i] = `"` + string(rune('a'+i)) + `":"v"`
	}
	for _, tc := range []refusal{
		{"stream of another type", `"stream":"yes"`, "stream", "invalid_type"},
		{"store of another type", `"store":1`, "store", "invalid_type"},
		{"instructions of another type", `"instructions":[]`, "instructions", "invalid_type"},
		{"stream_options of another type", `"stream_options":[]`, "stream_options", "invalid_type"},
		{"include_obfuscation", `"stream_options":{"include_obfuscation":"no"}`, "stream_options.include_obfuscation", "invalid_type"},
		{"max_output_tokens below 16", `"max_output_tokens":15`, "max_output_tokens", "integer_below_min_value"},
		{"max_output_tokens no integer", `"max_output_tokens":16.5`, "max_output_tokens", "invalid_type"},
		{"max_output_tokens beyond any", `"max_output_tokens":1e300`, "max_output_tokens", "invalid_type"},
		{"negative max_tool_calls", `"max_tool_calls":-1`, "max_tool_calls", "integer_below_min_value"},
		{"parallel_tool_calls", `"parallel_tool_calls":"x"`, "parallel_tool_calls", "invalid_type"},
		{"temperature", `"temperature":2.1`, "temperature", "invalid_value"},
		{"top_p", `"top_p":-0.1`, "top_p", "invalid_value"},
		{"presence_penalty", `"presence_penalty":2.5`, "presence_penalty", "invalid_value"},
		{"frequency_penalty", `"frequency_penalty":"1"`, "frequency_penalty", "invalid_type"},
		{"top_logprobs", `"top_logprobs":21`, "top_logprobs", "integer_above_max_value"},
		{"metadata no object", `"metadata":[]`, "metadata", "invalid_type"},
		{"metadata values", `"metadata":{"a":1}`, "metadata", "invalid_type"},
		{"metadata value too long", `"metadata":{"a":"` + strings.Repeat("x", 513) + `"}`, "metadata", "string_above_max_length"},
		{"metadata key too long", `"metadata":{"` + strings.Repeat("x", 65) + `":"v"}`, "metadata", "string_above_max_length"},
		{"metadata too many", `"metadata":{` + strings.Join(many, ",") + `}`, "metadata", "object_above_max_properties"},
		{"NUL in metadata", `"metadata":{"a":"\u0000"}`, "metadata", "invalid_value"},
		{"unknown tier", `"service_tier":"turbo"`, "service_tier", "invalid_value"},
		{"truncation", `"truncation":"some"`, "truncation", "invalid_value"},
		{"safety_identifier", `"safety_identifier":"` + strings.Repeat("ä", 65) + `"`, "safety_identifier", "string_above_max_length"},
		{"prompt_cache_key", `"prompt_cache_key":"` + strings.Repeat("k", 65) + `"`, "prompt_cache_key", "string_above_max_length"},
		{"prompt_cache_retention", `"prompt_cache_retention":"ever"`, "prompt_cache_retention", "invalid_value"},
		{"NUL in user", `"user":"\u0000"`, "user", "invalid_value"},
		{"include no array", `"include":"x"`, "include", "invalid_type"},
		{"include unknown", `"include":["reasoning.encrypted_content","everything"]`, "include[1]", "invalid_value"},
		{"prompt without id", `"prompt":{"version":"1"}`, "prompt.id", "missing_required_parameter"},
		{"prompt no object", `"prompt":"p"`, "prompt", "invalid_type"},
		{"moderation no object", `"moderation":true`, "moderation", "invalid_type"},
		{"context_management no array", `"context_management":{}`, "context_management", "invalid_type"},
		{"context_management entry", `"context_management":[1]`, "context_management[0]", "invalid_type"},
		{"context_management type", `"context_management":[{"type":"magic"}]`, "context_management[0].type", "invalid_value"},
		{"compact_threshold", `"context_management":[{"type":"compaction","compact_threshold":999}]`, "context_management[0].compact_threshold", "integer_below_min_value"},
		{"background not stored", `"background":true,"store":false`, "background", "invalid_value"},
		{"conversation of another type", `"conversation":7`, "conversation", "invalid_type"},
		{"conversation without id", `"conversation":{}`, "conversation.id", "missing_required_parameter"},
		{"conversation and previous", `"conversation":{"id":"c"},"previous_response_id":"r"`, "conversation", "mutually_exclusive_parameters"},
		{"NUL in previous", `"previous_response_id":"\u0000"`, "previous_response_id", "invalid_value"},
		{"text no object", `"text":"x"`, "text", "invalid_type"},
		{"verbosity", `"text":{"verbosity":"loud"}`, "text.verbosity", "invalid_value"},
		{"format no object", `"text":{"format":"json"}`, "text.format", "invalid_type"},
		{"format without type", `"text":{"format":{}}`, "text.format.type", "missing_required_parameter"},
		{"text format", `"text":{"format":{"type":"xml"}}`, "text.format.type", "invalid_value"},
		{"schema without name", `"text":{"format":{"type":"json_schema","schema":{}}}`, "text.format.name", "missing_required_parameter"},
		{"name of a schema", `"text":{"format":{"type":"json_schema","name":"a b","schema":{}}}`, "text.format.name", "invalid_value"},
		{"name without schema", `"text":{"format":{"type":"json_schema","name":"a"}}`, "text.format.schema", "missing_required_parameter"},
		{"strict of another type", `"text":{"format":{"type":"json_schema","name":"a","schema":{},"strict":"yes"}}`, "text.format.strict", "invalid_type"},
		{"reasoning no object", `"reasoning":"high"`, "reasoning", "invalid_type"},
		{"effort", `"reasoning":{"effort":"huge"}`, "reasoning.effort", "invalid_value"},
		{"summary", `"reasoning":{"summary":"long"}`, "reasoning.summary", "invalid_value"},
		{"generate_summary", `"reasoning":{"generate_summary":1}`, "reasoning.generate_summary", "invalid_type"},
	} {
		tc.body = `{"model":"m","input":"x",` + tc.body + `}`
		t.Run(tc.name, tc.check)
	}
}

// stress has every optional field that the Go SDK knows, but for what is in conflict.
const stress = `{"background":true,"instructions":"instructions","max_output_tokens":16,"max_tool_calls":0,"parallel_tool_calls":true,
 "previous_response_id":"previous_response_id","prompt_cache_key":"prompt-cache-key-1234","safety_identifier":"safety-identifier-1234",
 "store":true,"temperature":1,"top_logprobs":0,"top_p":1,"user":"user-1234","context_management":[{"type":"compaction","compact_threshold":1000}],
 "include":["file_search_call.results"],"metadata":{"foo":"string"},
 "moderation":{"model":"model","policy":{"input":{"mode":"score"},"output":{"mode":"score"}}},
 "prompt":{"id":"id","version":"version","variables":{"foo":"string"}},"prompt_cache_retention":"in_memory","service_tier":"auto",
 "stream_options":{"include_obfuscation":true},"truncation":"auto","access_programs":{"cyber":"standard"},"input":"string","model":"gpt-6-astra",
 "prompt_cache_options":{"comparison_response_id":"resp_123","prewarm":true,"mode":"implicit","ttl":"30m"},
 "reasoning":{"context":"auto","effort":"none","generate_summary":"auto","summary":"auto","mode":"standard"},
 "text":{"verbosity":"low","format":{"type":"text"}},"tool_choice":"none",
 "tools":[{"type":"function","name":"name","description":"description","strict":true,"parameters":{"foo":"bar"},"async":true,"defer_loading":true,"allowed_callers":["direct"],"output_schema":{"foo":"bar"}}]}`

// codingAgent is the first turn of a coding agent.
const codingAgent = `{"model":"gpt-4o-mini","stream":true,"store":false,"tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"summary":"auto"},
 "include":["reasoning.encrypted_content"],"prompt_cache_key":"0199-aa","client_metadata":{"session_id":"0199-bb"},
 "input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"rules"}]},{"type":"message","role":"developer","content":[{"type":"input_text","text":"more"}]},
  {"type":"message","role":"user","content":[{"type":"input_text","text":"environment"}]},{"type":"message","role":"user","content":[{"type":"input_text","text":"do"}]}],
 "tools":[{"type":"function","name":"exec_command","description":"d","strict":false,"parameters":{"type":"object"}},{"type":"namespace","name":"multi_agent_v1","description":"d","tools":[]},{"type":"web_search"}]}`

func TestParseRequestAccepts(t *testing.T) {
	for _, tc := range []struct{ name, body string }{
		{"nulls are defaults", `{"model":"m","input":"x","stream":null,"store":null,"background":null,"tools":null,"tool_choice":null,"metadata":null,"max_output_tokens":null,"text":null,"reasoning":null,"service_tier":null,"temperature":null,"instructions":null,"previous_response_id":null,"conversation":null,"include":null,"stream_options":null,"prompt":null,"context_management":null,"prompt_cache_retention":null,"parallel_tool_calls":null,"max_tool_calls":null,"top_p":null,"top_logprobs":null,"truncation":null,"user":null,"safety_identifier":null,"prompt_cache_key":null,"moderation":null}`},
		{"unknown fields", `{"model":"m","input":"x","client_metadata":{"a":1},"generate":false,"access_programs":{"cyber":"standard"},"prompt_cache_options":{"prewarm":true}}`},
		{"every optional field", stress},
		{"a coding agent's first turn", codingAgent},
		{"zeros", `{"model":"m","input":[],"max_tool_calls":0,"temperature":0,"top_p":0,"top_logprobs":0}`},
		{"NUL in text", `{"model":"m","input":"\u0000"}`},
		{"all efforts", `{"model":"m","input":"x","reasoning":{"effort":"max"}}`},
		{"the longest input", `{"model":"m","input":"` + strings.Repeat("x", 10485760) + `"}`},
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

// The Go SDK's own test sends what excludes each other.
func TestStressBodyWithAConversation(t *testing.T) {
	refusal{
		"both", strings.Replace(stress, `"background"`, `"conversation":"string","background"`, 1),
		"conversation", "mutually_exclusive_parameters",
	}.check(t)
}

func TestConversationForms(t *testing.T) {
	for _, body := range []string{`"conv_1"`, `{"id":"conv_1"}`} {
		r, err := response.ParseRequest([]byte(`{"model":"m","input":"x","conversation":` + body + `}`))
		if err != nil || r.Conversation != "conv_1" {
			t.Errorf("conversation %s: got %+v, %v", body, r, err)
		}
	}
}

func TestInclude(t *testing.T) {
	r, err := response.ParseRequest([]byte(`{"model":"m","input":"x","include":["message.output_text.logprobs","web_search_call.results","message.output_text.logprobs"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Includes(response.IncludeLogprobs) || r.Includes(response.IncludeEncrypted) || len(r.Include) != 2 {
		t.Errorf("include: got %v", r.Include)
	}
}
