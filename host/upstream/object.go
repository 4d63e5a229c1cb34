package upstream

import (
	"bytes"
	"encoding/json"
)

// An entry is one member of a JSON object: its key, unescaped, and where its
// value stands.
type entry struct {
	key        string
	start, end int
}

// isObject reports whether b is one valid JSON object.
func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{' && json.Valid(b)
}

// entries lists the members of a valid JSON object, in order, duplicates
// included. It looks at the top level only and copies no value.
func entries(b []byte) []entry {
	var all []entry
	i := skipSpace(b, 0) + 1 // past {
	for {
		i = skipSpace(b, i)
		if i >= len(b) || b[i] == '}' {
			return all
		}
		if b[i] == ',' {
			i++
			continue
		}
		keyEnd := skipString(b, i)
		key := unquote(b[i:keyEnd])
		i = skipSpace(b, keyEnd)
		i = skipSpace(b, i+1) // past :
		end := skipValue(b, i)
		all = append(all, entry{key: key, start: i, end: end})
		i = end
	}
}

// Member returns where the value of the last member called key stands in a valid
// JSON object; false: it has no such member.
func Member(object []byte, key string) (start, end int, ok bool) {
	for _, e := range entries(object) {
		if e.key == key {
			start, end, ok = e.start, e.end, true
		}
	}
	return start, end, ok
}

// value returns the value of the last member called key, as decoders see it.
func value(b []byte, key string) []byte {
	var found []byte
	for _, e := range entries(b) {
		if e.key == key {
			found = b[e.start:e.end]
		}
	}
	return found
}

// withModel returns a valid JSON object with every "model" member replaced by
// model, or with one put first where there is none. All other bytes stay.
func withModel(b []byte, model string) ([]byte, error) {
	quoted, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(b)+len(quoted)+len(`"model":,`))
	copied, found, members := 0, false, 0
	for _, e := range entries(b) {
		members++
		if e.key == "model" {
			out = append(append(out, b[copied:e.start]...), quoted...)
			copied, found = e.end, true
		}
	}
	if !found {
		open := skipSpace(b, 0) + 1
		out = append(append(append(out, b[:open]...), `"model":`...), quoted...)
		if members > 0 {
			out = append(out, ',')
		}
		copied = open
	}
	return append(out, b[copied:]...), nil
}

func unquote(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 && len(b) >= 2 {
		return string(b[1 : len(b)-1])
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index past the string that begins at b[i].
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the index past the value that begins at b[i].
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			i++
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			i++
			continue
		default:
			i++
			continue
		}
		if depth == 0 {
			return i
		}
	}
	return len(b)
}
