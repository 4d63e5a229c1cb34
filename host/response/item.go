package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Item is one input or output item. The named fields are what the host looks
// at; Raw is the whole item as it came, and is what is encoded.
type Item struct {
	Type   string // "message" when the client left it out
	ID     string
	CallID string // of function_call and function_call_output
	Status string // "" where the client did not say
	Raw    json.RawMessage
}

// MarshalJSON returns Raw.
func (it Item) MarshalJSON() ([]byte, error) {
	if len(it.Raw) == 0 {
		return nil, errors.New("response: item without its raw form")
	}
	return it.Raw, nil
}

// UnmarshalJSON reads any JSON object; fields of another type than expected
// count as absent.
func (it *Item) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("response: item: %w", err)
	}
	if m == nil {
		return errors.New("response: item: not an object")
	}
	*it = Item{
		Type: text(m["type"]), ID: text(m["id"]), CallID: text(m["call_id"]), Status: text(m["status"]),
		Raw: append(json.RawMessage(nil), b...),
	}
	if it.Type == "" {
		it.Type = "message"
	}
	return nil
}

// text returns the string that raw is, or "".
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// parseInput reads the input of a request: a string or an array of items.
func parseInput(raw json.RawMessage) ([]Item, error) {
	if isNull(raw) {
		return nil, &BadRequest{"input", "missing_required_parameter", "input is required."}
	}
	switch raw[0] {
	case '"':
		msg := marshal(map[string]any{"type": "message", "role": "user", "content": raw})
		return []Item{{Type: "message", Raw: msg}}, nil
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, invalidType("input", "a string or an array of items")
		}
		items := make([]Item, 0, len(list))
		for i, r := range list {
			it, err := parseItem(fmt.Sprintf("input[%d]", i), r)
			if err != nil {
				return nil, err
			}
			items = append(items, it)
		}
		return items, nil
	}
	return nil, invalidType("input", "a string or an array of items")
}

// parseItem checks one input item. Items of types that the model cannot be
// shown (reasoning, hosted tools' receipts) are kept and left out of its input.
func parseItem(param string, raw json.RawMessage) (Item, error) {
	f, err := parseFields(param, raw)
	if err != nil {
		return Item{}, err
	}
	it := Item{Type: f.str("type"), ID: f.name("id"), Raw: compact(raw)}
	if s := f.m["status"]; !isNull(s) {
		it.Status = text(s)
	}
	switch it.Type {
	case "", "message":
		it.Type = "message"
		f.message()
	case "function_call":
		it.CallID = f.required("call_id")
		f.required("name")
	case "function_call_output":
		it.CallID = f.required("call_id")
		if out := f.m["output"]; len(out) > 0 && out[0] == '[' {
			f.parts("output", out)
		}
	case "mcp_call":
		f.required("id")
		f.required("name")
		f.required("server_label")
	case "item_reference":
		f.fail("", "unsupported_value", "item_reference cannot be resolved here: send the item itself, or previous_response_id.")
	case "compaction":
		f.fail("", "unsupported_value", "Compacted items cannot be read by this host.")
	}
	return it, f.failed()
}

// message checks role and content of a message item.
func (f *fields) message() {
	f.name("name")
	switch role := f.required("role"); role {
	case "user", "assistant", "system", "developer", "":
	default:
		f.fail("role", "invalid_value", "role must be user, assistant, system or developer.")
	}
	content, ok := f.m["content"]
	switch {
	case !ok:
		f.fail("content", "missing_required_parameter", "A message needs content.")
	case isNull(content) || content[0] == '"':
	case content[0] == '[':
		f.parts("content", content)
	default:
		f.fail("content", "invalid_type", "content must be a string or an array of parts.")
	}
}

// parts checks that each content part can be shown to a chat model: nothing a
// client sent is dropped in silence.
func (f *fields) parts(name string, raw json.RawMessage) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		f.fail(name, "invalid_type", name+" must be an array of parts.")
		return
	}
	for i, r := range list {
		p, err := parseFields(fmt.Sprintf("%s[%d]", f.param(name), i), r)
		if err != nil {
			f.err = err
			return
		}
		if _, ok := chatPart(p.m); !ok {
			p.fail("", "unsupported_value", "This kind of content part is not supported: "+
				"use input_text, output_text, refusal, input_image with image_url, input_file with file_data or input_audio.")
		}
		if p.err != nil {
			f.err = p.err
			return
		}
	}
}

// chatPart translates a content part to Chat Completions; false if it cannot
// be said there.
func chatPart(m map[string]json.RawMessage) (map[string]any, bool) {
	switch text(m["type"]) {
	case "input_text", "output_text", "text", "summary_text", "reasoning_text":
		return textPart(m["text"])
	case "refusal":
		return textPart(m["refusal"])
	case "input_image":
		url := text(m["image_url"])
		if url == "" {
			return nil, false
		}
		image := map[string]any{"url": url}
		if d := text(m["detail"]); d != "" {
			image["detail"] = d
		}
		return map[string]any{"type": "image_url", "image_url": image}, true
	case "image_url":
		return map[string]any{"type": "image_url", "image_url": m["image_url"]}, !isNull(m["image_url"])
	case "input_file":
		data := text(m["file_data"])
		if data == "" {
			return nil, false
		}
		file := map[string]any{"file_data": data}
		if n := text(m["filename"]); n != "" {
			file["filename"] = n
		}
		return map[string]any{"type": "file", "file": file}, true
	case "input_audio":
		return map[string]any{"type": "input_audio", "input_audio": m["input_audio"]}, !isNull(m["input_audio"])
	}
	return nil, false
}

func textPart(raw json.RawMessage) (map[string]any, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return nil, false
	}
	return map[string]any{"type": "text", "text": text(raw)}, true
}

// chatContent translates an item's content: a string stays one, a list of one
// text becomes a string, other lists become chat parts.
func chatContent(raw json.RawMessage) any {
	if isNull(raw) {
		return ""
	}
	switch raw[0] {
	case '"':
		return text(raw)
	case '[':
	default:
		return string(raw)
	}
	var list []map[string]json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return string(raw)
	}
	parts := make([]map[string]any, 0, len(list))
	for _, m := range list {
		if p, ok := chatPart(m); ok {
			parts = append(parts, p)
		}
	}
	switch {
	case len(parts) == 0:
		return ""
	case len(parts) == 1 && parts[0]["type"] == "text":
		return parts[0]["text"]
	}
	return parts
}

// plainText joins the texts of an item's content.
func plainText(raw json.RawMessage) string {
	switch c := chatContent(raw).(type) {
	case string:
		return c
	case []map[string]any:
		var b strings.Builder
		for _, p := range c {
			if s, ok := p["text"].(string); ok {
				b.WriteString(s)
			}
		}
		return b.String()
	}
	return ""
}
