// Package object finds the members of a JSON object in its text, without
// decoding or copying a value: bodies may be long, and most of what is in them is
// for the upstream alone. It does not check JSON: the text of a value that is no
// valid object may be split anyhow, though never past its end.
package object

import (
	"bytes"
	"encoding/json"
	"iter"
)

// Span is where a value stands: text[Start:End].
type Span struct{ Start, End int }

// Begins reports whether a valid JSON text is an object.
func Begins(text []byte) bool {
	i := skipSpace(text, 0)
	return i < len(text) && text[i] == '{'
}

// Valid reports whether text is one valid JSON object.
func Valid(text []byte) bool { return Begins(text) && json.Valid(text) }

// Members yields the members of the top level, in order, duplicates included:
// each key, unescaped, and where its value stands.
func Members(text []byte) iter.Seq2[[]byte, Span] {
	return func(yield func([]byte, Span) bool) {
		i := skipSpace(text, 0) + 1 // past {
		for {
			i = skipSpace(text, i)
			if i >= len(text) || text[i] == '}' {
				return
			}
			if text[i] == ',' {
				i++
				continue
			}
			end := skipString(text, i)
			key := unquote(text[i:end])
			i = skipSpace(text, end)
			i = skipSpace(text, i+1) // past :
			end = skipValue(text, i)
			if i > len(text) || !yield(key, Span{i, end}) {
				return
			}
			i = end
		}
	}
}

// Find returns where the value of the last member called key stands: decoders
// take the last one too. false: there is no such member.
func Find(text []byte, key string) (at Span, ok bool) {
	for k, v := range Members(text) {
		if string(k) == key {
			at, ok = v, true
		}
	}
	return at, ok
}

// Value returns the value of the last member called key; nil: there is none.
func Value(text []byte, key string) []byte {
	at, ok := Find(text, key)
	if !ok {
		return nil
	}
	return text[at.Start:at.End]
}

func unquote(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 && len(b) >= 2 {
		return b[1 : len(b)-1]
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil
	}
	return []byte(s)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index past the string that begins at b[i]. Texts make
// up most of a body, so it looks at few of their bytes one by one.
func skipString(b []byte, i int) int {
	i++
	quote := -1 // the next one, escaped or not
	for i < len(b) {
		if quote < i {
			n := bytes.IndexByte(b[i:], '"')
			if n < 0 {
				return len(b)
			}
			quote = i + n
		}
		n := bytes.IndexByte(b[i:quote], '\\')
		if n < 0 {
			return quote + 1
		}
		i += n + 2
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
