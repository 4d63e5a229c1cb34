package endtoend_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// schema is what a JSON value must be: the part of the Open Responses
// specification of 2026-04-24 that responses and their events are held to.
type schema func(path string, v any) []string

// every value of these types, null aside.
func ofType(name string) schema {
	return func(path string, v any) []string {
		ok := false
		switch name {
		case "string":
			_, ok = v.(string)
		case "bool":
			_, ok = v.(bool)
		case "number":
			_, ok = v.(float64)
		case "integer":
			n, is := v.(float64)
			ok = is && n == float64(int64(n))
		case "array":
			_, ok = v.([]any)
		case "object":
			_, ok = v.(map[string]any)
		case "any":
			ok = true
		}
		if !ok {
			return []string{fmt.Sprintf("%s: %v is no %s", path, v, name)}
		}
		return nil
	}
}

func orNull(s schema) schema {
	return func(path string, v any) []string {
		if v == nil {
			return nil
		}
		return s(path, v)
	}
}

func oneOf(values ...string) schema {
	return func(path string, v any) []string {
		if s, ok := v.(string); !ok || !slices.Contains(values, s) {
			return []string{fmt.Sprintf("%s: %v is none of %v", path, v, values)}
		}
		return nil
	}
}

// list is an array whose entries are all s.
func list(s schema) schema {
	return func(path string, v any) []string {
		entries, ok := v.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: %v is no array", path, v)}
		}
		var wrong []string
		for i, e := range entries {
			wrong = append(wrong, s(fmt.Sprintf("%s[%d]", path, i), e)...)
		}
		return wrong
	}
}

// keys is an object that has every key, each as its schema says; one whose name
// ends in "?" may be absent. Others may be there.
type keys map[string]schema

func (k keys) check(path string, v any) []string {
	m, ok := v.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("%s: %v is no object", path, v)}
	}
	var wrong []string
	for name, s := range k {
		name, optional := strings.CutSuffix(name, "?")
		entry, ok := m[name]
		switch {
		case ok:
			wrong = append(wrong, s(path+"."+name, entry)...)
		case !optional:
			wrong = append(wrong, path+"."+name+" is missing")
		}
	}
	return wrong
}

// byType is an object of one of the types, each with its keys.
func byType(types map[string]keys) schema {
	return func(path string, v any) []string {
		m, _ := v.(map[string]any)
		kind, _ := m["type"].(string)
		k, ok := types[kind]
		if !ok {
			return []string{fmt.Sprintf("%s: type %q is none of the specification's", path, kind)}
		}
		return k.check(path, v)
	}
}

var (
	str, boolean, number, integer, object, anything = ofType("string"), ofType("bool"), ofType("number"), ofType("integer"), ofType("object"), ofType("any")

	contentPart = byType(map[string]keys{
		"output_text":    {"text": str, "annotations": list(object), "logprobs?": list(object)},
		"refusal":        {"refusal": str},
		"input_text":     {"text": str},
		"summary_text":   {"text": str},
		"reasoning_text": {"text": str},
		"input_image":    {"detail?": str},
		"input_file":     {},
	})
	itemStatus = oneOf("in_progress", "completed", "incomplete")
	// outputItem is the specification's union: what the tests' prompts may bring.
	outputItem = byType(map[string]keys{
		"message":              {"id": str, "status": itemStatus, "role": oneOf("assistant", "user", "system", "developer"), "content": list(contentPart)},
		"function_call":        {"id": str, "call_id": str, "name": str, "arguments": str, "status": itemStatus},
		"function_call_output": {"id": str, "call_id": str, "output": anything, "status": itemStatus},
		"reasoning":            {"id": str, "summary": list(contentPart), "content?": list(contentPart), "encrypted_content?": str},
		"compaction":           {"id": str, "encrypted_content": str},
	})
	usage = keys{
		"input_tokens": integer, "output_tokens": integer, "total_tokens": integer,
		"input_tokens_details":  keys{"cached_tokens": integer}.check,
		"output_tokens_details": keys{"reasoning_tokens": integer}.check,
	}
	functionTool = keys{"type": str, "name": str, "description": orNull(str), "parameters": orNull(object), "strict": orNull(boolean)}

	// responseObject has the 31 keys that the specification requires.
	responseObject = keys{
		"id": str, "object": oneOf("response"), "created_at": integer, "completed_at": orNull(integer),
		"status":             oneOf("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
		"incomplete_details": orNull(keys{"reason": oneOf("max_output_tokens", "content_filter")}.check),
		"model":              str, "previous_response_id": orNull(str), "instructions": orNull(str),
		"output": list(outputItem), "error": orNull(keys{"code": str, "message": str}.check),
		"tools": list(functionTool.check), "tool_choice": notNull, "truncation": oneOf("auto", "disabled"),
		"parallel_tool_calls": boolean, "text": keys{"format": keys{"type": str}.check}.check,
		"top_p": number, "presence_penalty": number, "frequency_penalty": number, "top_logprobs": integer, "temperature": number,
		"reasoning": orNull(keys{"effort": orNull(str), "summary": orNull(str)}.check),
		"usage":     orNull(usage.check), "max_output_tokens": orNull(integer), "max_tool_calls": orNull(integer),
		"store": boolean, "background": boolean, "service_tier": str, "metadata": object,
		"safety_identifier": orNull(str), "prompt_cache_key": orNull(str),
	}
)

func notNull(path string, v any) []string {
	if v == nil {
		return []string{path + " is null"}
	}
	return nil
}

// Fields of events.
var (
	ofResponse = keys{"sequence_number": integer, "response": responseObject.check}
	ofItem     = keys{"sequence_number": integer, "output_index": integer, "item": outputItem}
	inItem     = keys{"sequence_number": integer, "output_index": integer, "item_id": str}
)

func (k keys) with(more keys) keys {
	all := keys{}
	for _, m := range []keys{k, more} {
		for name, s := range m {
			all[name] = s
		}
	}
	return all
}

// event is the specification's union of events.
var event = byType(map[string]keys{
	"response.created": ofResponse, "response.queued": ofResponse, "response.in_progress": ofResponse,
	"response.completed": ofResponse, "response.failed": ofResponse, "response.incomplete": ofResponse,
	"response.output_item.added": ofItem, "response.output_item.done": ofItem,
	"response.content_part.added":            inItem.with(keys{"content_index": integer, "part": contentPart}),
	"response.content_part.done":             inItem.with(keys{"content_index": integer, "part": contentPart}),
	"response.output_text.delta":             inItem.with(keys{"content_index": integer, "delta": str, "logprobs?": list(object)}),
	"response.output_text.done":              inItem.with(keys{"content_index": integer, "text": str, "logprobs?": list(object)}),
	"response.output_text.annotation.added":  inItem.with(keys{"content_index": integer, "annotation_index": integer, "annotation": orNull(object)}),
	"response.refusal.delta":                 inItem.with(keys{"content_index": integer, "delta": str}),
	"response.refusal.done":                  inItem.with(keys{"content_index": integer, "refusal": str}),
	"response.function_call_arguments.delta": inItem.with(keys{"delta": str}),
	"response.function_call_arguments.done":  inItem.with(keys{"arguments": str}),
	"response.reasoning_summary_part.added":  inItem.with(keys{"summary_index": integer, "part": contentPart}),
	"response.reasoning_summary_part.done":   inItem.with(keys{"summary_index": integer, "part": contentPart}),
	"response.reasoning_summary_text.delta":  inItem.with(keys{"summary_index": integer, "delta": str}),
	"response.reasoning_summary_text.done":   inItem.with(keys{"summary_index": integer, "text": str}),
	"error":                                  {"sequence_number": integer, "error": keys{"type": str, "code": orNull(str), "message": str, "param": orNull(str)}.check},
})

// wrong holds JSON against a schema and returns what is not so.
func wrong(data []byte, s schema) []string {
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return []string{err.Error()}
	}
	return s("$", v)
}
