package translate

import "encoding/json"

// citation turns an annotation of Chat Completions into one of Responses, where
// its fields stand beside its type; false: it is none.
func citation(raw json.RawMessage) (json.RawMessage, bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || text(m["type"]) == "" {
		return nil, false
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(m[text(m["type"])], &inner) == nil && inner != nil {
		inner["type"] = m["type"]
		m = inner
	}
	return marshal(m), true
}

// nested turns an annotation of Responses into one of Chat Completions.
func nested(raw json.RawMessage) (json.RawMessage, bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || text(m["type"]) != "url_citation" {
		return nil, false
	}
	kind := m["type"]
	delete(m, "type")
	return marshal(map[string]any{"type": kind, "url_citation": m}), true
}
