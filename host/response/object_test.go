package response_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// every are the keys that a Response object always has.
var every = []string{
	"id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
	"instructions", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
	"presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "max_output_tokens",
	"max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
	"user", "output", "usage",
}

// objectFor is the object of a response that has not begun.
func objectFor(t *testing.T, body string) map[string]json.RawMessage {
	t.Helper()
	r, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatalf("ParseRequest: %v", err)
	}
	s := response.NewStream(simID, simID.Time(), r, nil)
	s.Created(false)
	o := map[string]json.RawMessage{}
	if err := json.Unmarshal(s.Response(), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func compare(t *testing.T, o map[string]json.RawMessage, want map[string]string) {
	t.Helper()
	for k, w := range want {
		if string(o[k]) != w {
			t.Errorf("%s: got %s, want %s", k, o[k], w)
		}
	}
}

func TestObjectOfASmallRequest(t *testing.T) {
	o := objectFor(t, `{"model":"m","input":"x"}`)
	for _, k := range every {
		if _, ok := o[k]; !ok {
			t.Errorf("%s is not there", k)
		}
	}
	for k := range o {
		if !slices.Contains(every, k) {
			t.Errorf("%s is there", k)
		}
	}
	compare(t, o, map[string]string{
		"object": `"response"`, "status": `"in_progress"`, "completed_at": "null", "incomplete_details": "null", "error": "null",
		"instructions": "null", "previous_response_id": "null", "tools": "[]", "tool_choice": `"auto"`, "truncation": `"disabled"`,
		"parallel_tool_calls": "true", "text": `{"format":{"type":"text"}}`, "top_p": "1", "temperature": "1",
		"presence_penalty": "0", "frequency_penalty": "0", "top_logprobs": "0", "reasoning": `{"effort":null,"summary":null}`,
		"max_output_tokens": "null", "max_tool_calls": "null", "store": "true", "background": "false", "service_tier": `"default"`,
		"metadata": "{}", "safety_identifier": "null", "prompt_cache_key": "null", "user": "null", "output": "[]", "usage": "null",
	})
}

func TestObjectEchoesTheRequest(t *testing.T) {
	compare(t, objectFor(t, stress), map[string]string{
		"background": "true", "instructions": `"instructions"`, "max_output_tokens": "16", "max_tool_calls": "0", "parallel_tool_calls": "true",
		"previous_response_id": `"previous_response_id"`, "prompt_cache_key": `"prompt-cache-key-1234"`, "safety_identifier": `"safety-identifier-1234"`,
		"user": `"user-1234"`, "metadata": `{"foo":"string"}`, "service_tier": `"default"`, "truncation": `"auto"`, "model": `"gpt-6-astra"`,
		"prompt": `{"id":"id","version":"version","variables":{"foo":"string"}}`, "prompt_cache_retention": `"in_memory"`,
		"reasoning":   `{"context":"auto","effort":"none","generate_summary":"auto","mode":"standard","summary":"auto"}`,
		"text":        `{"format":{"type":"text"},"verbosity":"low"}`,
		"tool_choice": `"none"`,
		"tools":       `[{"allowed_callers":["direct"],"async":true,"defer_loading":true,"description":"description","name":"name","output_schema":{"foo":"bar"},"parameters":{"foo":"bar"},"strict":true,"type":"function"}]`,
	})
	compare(t, objectFor(t, codingAgent), map[string]string{"store": "false", "reasoning": `{"effort":null,"summary":"auto"}`, "prompt_cache_key": `"0199-aa"`})
	compare(t, objectFor(t, `{"model":"m","input":"x","conversation":"conv_1","text":{"format":{"type":"json_schema","name":"n","schema":{"b":1,"a":2}}},"temperature":0,"top_p":0,"presence_penalty":-1,"store":false,"parallel_tool_calls":false}`), map[string]string{
		"conversation": `{"id":"conv_1"}`, "temperature": "0", "top_p": "0", "presence_penalty": "-1", "store": "false", "parallel_tool_calls": "false",
		"text": `{"format":{"description":null,"name":"n","schema":{"b":1,"a":2},"strict":false,"type":"json_schema"}}`,
	})
}

// L24: the tier that is told is the one that serves.
func TestServiceTierTold(t *testing.T) {
	for asked, told := range map[string]string{
		"auto": "default", "default": "default", "priority": "priority", "flex": "flex",
		"scale": "default", "fast": "default", "ultrafast": "default",
	} {
		o := objectFor(t, `{"model":"m","input":"x","service_tier":"`+asked+`"}`)
		compare(t, o, map[string]string{"service_tier": `"` + told + `"`})
	}
}
