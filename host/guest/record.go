package guest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// What a guest says of itself is kept with its step, for its owner to read: on
// one line each, printable, and no more than fits there.

// record returns text fit for a step's record: valid UTF-8, line ends kept,
// everything else that does not print escaped, at most n bytes.
func record(text string, n int) string {
	var b strings.Builder
	for _, r := range text {
		if !room(&b, r, n, true) {
			break
		}
	}
	return b.String()
}

// room appends one rune, escaped if need be, and reports whether it fitted.
func room(b *strings.Builder, r rune, n int, lines bool) bool {
	s := string(r)
	switch {
	case r == utf8.RuneError, unicode.IsPrint(r), lines && r == '\n':
	case r == '\n':
		s = `\n`
	case r == '\t':
		s = `\t`
	case r < 0x100:
		s = fmt.Sprintf(`\x%02x`, r)
	default:
		s = fmt.Sprintf(`\u{%x}`, r)
	}
	if b.Len()+len(s) > n {
		return false
	}
	b.WriteString(s)
	return true
}

// levelName returns the name of a level, which guests choose: one beyond the
// last is as grave.
func levelName(l abi.Level) string {
	names := [...]string{abi.LevelTrace: "trace", abi.LevelDebug: "debug", abi.LevelInfo: "info", abi.LevelWarn: "warn", abi.LevelError: "error"}
	return names[min(max(l, abi.LevelTrace), abi.LevelError)]
}

// noteRoom is kept free for the line that tells what was left out.
const noteRoom = 64

// logText writes a call's log for its step, one line each: "warn: text". What
// does not fit is counted on the last line, together with what the sandbox has
// dropped.
func logText(all []plugins.LogLine, dropped int) string {
	var b strings.Builder
	const most = response.MaxLog - noteRoom
	for i, l := range all {
		var line strings.Builder
		line.WriteString(levelName(l.Level))
		line.WriteString(": ")
		for _, r := range strings.TrimRight(l.Text, "\r\n") {
			if !room(&line, r, most-1, false) {
				break
			}
		}
		if b.Len()+line.Len()+1 > most {
			dropped += len(all) - i
			break
		}
		b.WriteString(line.String())
		b.WriteByte('\n')
	}
	if dropped > 0 {
		fmt.Fprintf(&b, "(%d more lines were not kept)\n", dropped)
	}
	return b.String()
}
