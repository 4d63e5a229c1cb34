package response

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// CustomInput is the input of a call of a custom tool, which its model was
// offered as a function with one string, input. Arguments that are not such an
// object are the input themselves.
func CustomInput(arguments string) string {
	var in struct{ Input *string }
	if json.Unmarshal([]byte(arguments), &in) != nil || in.Input == nil {
		return arguments
	}
	return *in.Input
}

// inputReader reads the input of such a call while its arguments come. What it
// has read is the beginning of CustomInput of all of them, unless those turn
// out broken.
type inputReader struct {
	raw    string // not read yet
	inside bool   // within the string
	over   bool   // behind it, or nothing that can be read
}

// read takes the next piece of the arguments, and returns the input that it
// brought.
func (r *inputReader) read(piece string) string {
	if r.over {
		return ""
	}
	r.raw += piece
	if !r.inside && !r.enter() {
		return ""
	}
	n := r.whole()
	var text string
	if json.Unmarshal([]byte(`"`+r.raw[:n]+`"`), &text) != nil {
		r.over = true
		return ""
	}
	r.raw = r.raw[n:]
	return text
}

// enter skips what comes before the string; false while that is not all there.
func (r *inputReader) enter() bool {
	rest := r.raw
	for _, token := range []string{"{", `"input"`, ":", `"`} {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if len(rest) < len(token) && strings.HasPrefix(token, rest) {
			return false
		}
		after, ok := strings.CutPrefix(rest, token)
		if !ok {
			r.over = true
			return false
		}
		rest = after
	}
	r.raw, r.inside = rest, true
	return true
}

// whole counts the bytes that can be read now: up to the end of the string or
// to an escape or a character that is not all there.
func (r *inputReader) whole() int {
	i := 0
	for i < len(r.raw) {
		switch c := r.raw[i]; {
		case c == '"':
			r.over = true
			return i
		case !utf8.FullRuneInString(r.raw[i:]):
			return i
		case c == '\\':
			n := escapeLen(r.raw[i:])
			if n == 0 {
				return i
			}
			i += n
		default:
			i++
		}
	}
	return i
}

// escapeLen is the length of the escape that s begins with, a pair of
// surrogates counting as one; 0 if it is not all there.
func escapeLen(s string) int {
	switch {
	case len(s) < 2:
		return 0
	case s[1] != 'u':
		return 2
	case len(s) < 6:
		return 0
	case !strings.ContainsRune("dD", rune(s[2])) || !strings.ContainsRune("89abAB", rune(s[3])):
		return 6
	case len(s) < 8 && strings.HasPrefix(`\u`, s[6:]), len(s) < 12 && strings.HasPrefix(s[6:], `\u`):
		return 0
	case strings.HasPrefix(s[6:], `\u`):
		return 12
	}
	return 6
}
