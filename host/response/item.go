package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
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

// maxInputText is how many characters an input that is a text may have.
const maxInputText = 10485760

// parseInput reads the input of a request: a string or an array of items. One
// that goes on from others may leave it out.
func parseInput(raw json.RawMessage, goesOn bool) ([]Item, error) {
	switch {
	case isNull(raw) && goesOn:
		return []Item{}, nil
	case isNull(raw):
		return nil, &BadRequest{"input", "missing_required_parameter", "input is required."}
	}
	switch raw[0] {
	case '"':
		if utf8.RuneCountInString(text(raw)) > maxInputText {
			return nil, &BadRequest{"input", "string_above_max_length", fmt.Sprintf("input may have %d characters.", maxInputText)}
		}
		msg := marshal(map[string]any{"type": itemMessage, "role": "user", "content": raw})
		return []Item{{Type: itemMessage, Raw: msg}}, nil
	case '[':
		return ParseItems("input", raw)
	}
	return nil, invalidType("input", "a string or an array of items")
}

// ParseItems reads an array of input items; param is what a mistake is said to
// be in. The error is a *BadRequest.
func ParseItems(param string, raw json.RawMessage) ([]Item, error) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, invalidType(param, "an array of items")
	}
	items := make([]Item, 0, len(list))
	for i, r := range list {
		it, err := parseItem(fmt.Sprintf("%s[%d]", param, i), r)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// maxItemID is how many characters an item's id may have.
const maxItemID = 128

// parseItem checks one input item. Items of types that the model cannot be
// shown (hosted tools' receipts, extensions) are kept and left out of its
// input.
func parseItem(param string, raw json.RawMessage) (Item, error) {
	f, bad := parseFields(param, raw)
	if bad != nil {
		return Item{}, bad
	}
	it := Item{Type: f.name("type"), ID: f.short("id", maxItemID), Raw: compact(raw)}
	if s := f.m["status"]; !isNull(s) {
		it.Status = text(s)
	}
	if it.Type == "" {
		it.Type = itemMessage
		if it.ID != "" && isNull(f.m["role"]) && f.m["content"] == nil {
			it.Type = itemReference // whose type may be left out as well
		}
	}
	it.CallID = f.item(it.Type)
	return it, f.failed()
}

// item checks the members of an item of a type, and returns its call id.
func (f *fields) item(kind string) string {
	switch kind {
	case itemMessage:
		f.message()
	case itemReference:
		f.required("id")
	case itemReasoning:
		f.list("summary")
		f.list("content")
		f.str("encrypted_content")
	case itemFunction: // arguments of another type than a string are taken as their JSON
		f.required("name")
		return f.required("call_id")
	case itemCustomTool:
		f.required("name")
		f.str("input")
		return f.required("call_id")
	case itemFunctionOutput, itemCustomOutput:
		// Of another type it is shown as its JSON: clients send that too.
		if out := f.m["output"]; len(out) > 0 && out[0] == '[' {
			f.parts("output", out)
		}
		return f.required("call_id")
	case itemMCPCall:
		f.required("id")
		f.required("name")
		f.required("server_label")
	case itemMCPList:
		f.required("server_label")
		f.list("tools")
	case itemApproval:
		f.required("id")
		f.required("name")
		f.required("server_label")
		f.str("arguments")
	case itemApprovalAnswer:
		f.required("approval_request_id")
		if isNull(f.m["approve"]) {
			f.fail("approve", "missing_required_parameter", "approve is required.")
		}
		f.boolean("approve", false)
		f.str("reason")
	case itemCompaction:
		f.compaction()
	}
	return ""
}

// message checks role and content of a message item.
func (f *fields) message() {
	f.name("name")
	f.name("phase")
	switch role := f.required("role"); role {
	case "user", "assistant", "system", "developer", "":
	default:
		f.fail("role", "invalid_value", "role must be user, assistant, system or developer.")
	}
	content, ok := f.m["content"]
	switch {
	case !ok:
		f.fail("content", "missing_required_parameter", "A message needs content.")
	case isNull(content) || content[0] == '"': // where a model said nothing it may be null
	case content[0] == '[':
		f.parts("content", content)
	default:
		f.fail("content", "invalid_type", "content must be a string or an array of parts.")
	}
}
