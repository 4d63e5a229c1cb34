package translate

import (
	"bytes"
	"encoding/json"
	"strings"
)

// text returns the string that raw is, or "".
func text(raw json.RawMessage) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// isNull reports whether raw says nothing.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// marshal encodes v without escaping <, > and &. Everything that it is given
// can be encoded: its types hold no channels or functions, its raw messages
// were checked when they were read, its numbers came from JSON.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// count reads a number of tokens. What is odd counts as 0.
func count(raw json.RawMessage) int64 {
	var n float64
	if json.Unmarshal(raw, &n) != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return int64(n)
}

// mayBeNull reports whether args is, or could become, a way to say none.
func mayBeNull(args string) bool {
	t := strings.TrimRight(strings.TrimLeft(args, " \t\r\n"), " \t\r\n")
	return strings.HasPrefix("null", t) || strings.HasPrefix(`""`, t)
}

// normalArguments returns args, or {} for a way to say none.
func normalArguments(args string) string {
	switch strings.TrimSpace(args) {
	case "", "null", `""`:
		return "{}"
	}
	return args
}

// argumentsText is the arguments of a call as JSON text; null-like ones are {}.
func argumentsText(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		return normalArguments(text(raw))
	}
	return normalArguments(string(raw))
}

// objectText returns the arguments if they are a JSON object, else {}: templates
// of some upstreams fail on a transcript that holds what a model got wrong.
func objectText(arguments string) string {
	trimmed := strings.TrimSpace(arguments)
	if !strings.HasPrefix(trimmed, "{") || !json.Valid([]byte(trimmed)) {
		return "{}"
	}
	return trimmed
}

// compact returns raw without insignificant space, in memory of its own.
func compact(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return json.RawMessage("null")
	}
	return b.Bytes()
}
