package translate_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/translate"
)

// What Responses has no words for is refused by its name, and what asks for
// nothing is not.
func TestChatAsResponsesRefuses(t *testing.T) {
	for _, tc := range []struct{ fields, param, code string }{
		{`"n":2`, "n", "unsupported_value"},
		{`"seed":1`, "seed", "unsupported_parameter"},
		{`"stop":["a"]`, "stop", "unsupported_parameter"},
		{`"logit_bias":{"1":2}`, "logit_bias", "unsupported_parameter"},
		{`"audio":{"voice":"x","format":"wav"}`, "audio", "unsupported_parameter"},
		{`"modalities":["text","audio"]`, "modalities", "unsupported_value"},
		{`"prediction":{"type":"content","content":"x"}`, "prediction", "unsupported_parameter"},
		{`"web_search_options":{"a":1}`, "web_search_options", "unsupported_parameter"},
		{`"functions":[{"name":"f"}]`, "functions", "unsupported_parameter"},
		{`"function_call":"auto"`, "function_call", "unsupported_parameter"},
		{`"top_k":3`, "top_k", "unsupported_parameter"},
		{`"temperature":"hot"`, "temperature", "invalid_type"},
		{`"tools":[{"type":"function"}]`, "tools[0].function.name", "missing_required_parameter"},
		{`"tools":[{"type":"retrieval"}]`, "tools[0].type", "unsupported_value"},
		{`"tool_choice":{"type":"mcp"}`, "tool_choice.type", "unsupported_value"},
		{`"response_format":{"type":"xml"}`, "response_format.type", "unsupported_value"},
		{`"response_format":{"type":"json_schema"}`, "response_format.json_schema", "missing_required_parameter"},
		{`"messages":[]`, "messages", "missing_required_parameter"},
		{`"messages":"hi"`, "messages", "invalid_type"},
		{`"messages":[{"role":"function","content":"x","name":"f"}]`, "messages[0].name", "unsupported_parameter"},
		{`"messages":[{"role":"critic","content":"x"}]`, "messages[0].role", "unsupported_value"},
		{`"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]`, "messages[0].content[0]", "unsupported_value"},
		{`"messages":[{"role":"user","content":[{"type":"text","text":7}]}]`, "messages[0].content[0].text", "invalid_type"},
		{`"messages":[{"role":"user","content":"x"},{"role":"assistant","audio":{"id":"a"}}]`, "messages[1].audio", "unsupported_parameter"},
		{`"messages":[{"role":"assistant","function_call":{"name":"f"}}]`, "messages[0].function_call", "unsupported_parameter"},
		{`"messages":[{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f"}}]}]`, "messages[0].tool_calls[0].id", "missing_required_parameter"},
		{`"messages":[{"role":"tool","content":"x"}]`, "messages[0].tool_call_id", "missing_required_parameter"},
	} {
		body := `{"model":"m",` + tc.fields + `}`
		if !strings.Contains(tc.fields, `"messages"`) {
			body = `{"model":"m","messages":[{"role":"user","content":"SECRET"}],` + tc.fields + `}`
		}
		_, err := translate.ChatAsResponses([]byte(body))
		var u *translate.Unsupported
		if !errors.As(err, &u) || u.Param != tc.param || u.Code != tc.code || u.Message == "" {
			t.Errorf("%s: got %v (%+v), want %s of %s", tc.fields, err, u, tc.code, tc.param)
		}
	}
	nothing := `{"model":"m","messages":[{"role":"user","content":"x"}],"seed":null,"stop":[],"logit_bias":{},"functions":[],"top_k":null}`
	if _, err := translate.ChatAsResponses([]byte(nothing)); err != nil {
		t.Errorf("what asks for nothing: %v", err)
	}
}
