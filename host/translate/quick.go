package translate

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// quickText reads a chunk that adds text to the first choice and says nothing
// else, as nearly all of a stream do. false: it is none, or of a shape that only
// the whole decoder reads. It takes a chunk for what the decoder takes it for.
func quickText(data []byte) (string, bool) {
	s := scanner{b: data}
	content, found := []byte(nil), false
	ok := s.object(func(key []byte) bool {
		switch string(key) {
		case "choices":
			if found {
				return false
			}
			found = true
			return s.byte('[') && s.choice(&content) && s.byte(']')
		case "usage", "error":
			return s.word("null")
		}
		return s.scalar()
	})
	if !ok || !found || content == nil || !s.end() {
		return "", false
	}
	if bytes.IndexByte(content, '\\') < 0 && utf8.Valid(content) {
		return string(content[1 : len(content)-1]), true
	}
	var text string
	if json.Unmarshal(content, &text) != nil {
		return "", false
	}
	return text, true
}

// quickEvent reads an event of Responses that holds nothing but strings, numbers
// and empty lists, as nearly all of a stream do. Its fields are parts of data.
// false: it is none, or of a shape that only the whole decoder reads.
func quickEvent(data []byte) (e responsesEvent, ok bool) {
	s := scanner{b: data}
	ok = s.object(func(key []byte) bool {
		start := s.i
		if !s.flat() {
			return false
		}
		raw := json.RawMessage(s.b[start:s.i])
		if bytes.IndexByte(raw, '\\') >= 0 && !json.Valid(raw) {
			return false
		}
		switch string(key) {
		case "type":
			e.Type = eventNames[string(raw)]
			return e.Type != ""
		case "item_id":
			e.ItemID = raw
		case "output_index":
			e.OutputIndex = raw
		case "summary_index":
			e.SummaryIndex = raw
		case "delta":
			e.Delta = raw
		case "logprobs":
			e.Logprobs = raw
		case "response", "item", "text", "refusal", "arguments", "input", "annotation", "error":
			return false
		}
		return true
	})
	return e, ok && s.end() && e.Type != ""
}

// eventNames are the events that quickEvent reads, as they stand in the JSON.
var eventNames = map[string]string{
	`"response.output_text.delta"`:             "response.output_text.delta",
	`"response.refusal.delta"`:                 "response.refusal.delta",
	`"response.reasoning_text.delta"`:          "response.reasoning_text.delta",
	`"response.reasoning_summary_text.delta"`:  "response.reasoning_summary_text.delta",
	`"response.function_call_arguments.delta"`: "response.function_call_arguments.delta",
}

// choice reads the one choice of such a chunk.
func (s *scanner) choice(content *[]byte) bool {
	seen := false
	return s.object(func(key []byte) bool {
		switch string(key) {
		case "index":
			return s.word("0")
		case "delta":
			if seen {
				return false
			}
			seen = true
			return s.delta(content)
		case "logprobs", "finish_reason":
			return s.word("null")
		}
		return false
	})
}

func (s *scanner) delta(content *[]byte) bool {
	return s.object(func(key []byte) bool {
		switch string(key) {
		case "content":
			if *content != nil {
				return false
			}
			start := s.i
			if !s.string() {
				return false
			}
			*content = s.b[start:s.i]
			return true
		case "role":
			return s.string()
		case "refusal", "tool_calls", "function_call", "reasoning", "reasoning_content", "annotations", "audio":
			return s.word("null")
		}
		return false
	})
}

// scanner reads JSON strictly and gives up early.
type scanner struct {
	b []byte
	i int
}

// space skips white space.
func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

// byte reads c, with white space around it.
func (s *scanner) byte(c byte) bool {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	s.space()
	return true
}

// end reports whether nothing follows.
func (s *scanner) end() bool {
	s.space()
	return s.i == len(s.b)
}

// object reads an object; value reads each member's value.
func (s *scanner) object(value func(key []byte) bool) bool {
	if !s.byte('{') {
		return false
	}
	for {
		start := s.i
		if !s.string() {
			return false
		}
		key := s.b[start+1 : s.i-1]
		if !plainKey(key) || !s.byte(':') || !value(key) {
			return false
		}
		s.space()
		if s.i >= len(s.b) {
			return false
		}
		switch s.b[s.i] {
		case '}':
			s.i++
			return true
		case ',':
			s.byte(',')
		default:
			return false
		}
	}
}

// plainKey reports whether the decoder takes key for no other one: it does not
// look at the case of letters.
func plainKey(key []byte) bool {
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// string reads a string without looking at what its escapes mean.
func (s *scanner) string() bool {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return false
	}
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '\\':
			s.i++
		case c == '"':
			s.i++
			return true
		case c < ' ':
			return false
		}
	}
	s.i = len(s.b)
	return false
}

// word reads exactly w.
func (s *scanner) word(w string) bool {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return false
	}
	s.i += len(w)
	return s.i < len(s.b) && (s.b[s.i] == ',' || s.b[s.i] == '}' || s.b[s.i] == ']' || s.b[s.i] <= ' ')
}

// flat reads a string, an empty list or what scalar reads.
func (s *scanner) flat() bool {
	if s.i >= len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '"':
		return s.string()
	case '[':
		return s.word("[]")
	}
	return s.scalar()
}

// scalar reads a string without escapes, an integer from 0, or a word.
func (s *scanner) scalar() bool {
	if s.i >= len(s.b) {
		return false
	}
	switch c := s.b[s.i]; {
	case c == '"':
		start := s.i
		return s.string() && bytes.IndexByte(s.b[start:s.i], '\\') < 0
	case c == 'n':
		return s.word("null")
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c >= '1' && c <= '9':
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i < len(s.b)
	}
	return s.word("0")
}
