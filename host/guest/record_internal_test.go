package guest

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

func TestLogText(t *testing.T) {
	warn := func(text string) plugins.LogLine { return plugins.LogLine{Level: abi.LevelWarn, Text: text} }
	for _, tt := range []struct {
		name    string
		lines   []plugins.LogLine
		dropped int
		want    string
	}{
		{"nothing", nil, 0, ""},
		{"levels", []plugins.LogLine{
			{Level: abi.LevelTrace, Text: "a"}, {Level: abi.LevelError, Text: "b"}, {Level: 99, Text: "c"}, {Level: -1, Text: "d"},
		}, 0, "trace: a\nerror: b\nerror: c\ntrace: d\n"},
		{"one line each", []plugins.LogLine{warn("a\nb\r\n"), warn("c")}, 0, "warn: a\\nb\nwarn: c\n"},
		{"control characters", []plugins.LogLine{warn("\x1b[2J\x00\t\u202e")}, 0, "warn: \\x1b[2J\\x00\\t\\u{202e}\n"},
		{"not UTF-8", []plugins.LogLine{warn("a\xffb")}, 0, "warn: a\uFFFDb\n"},
		{"dropped", []plugins.LogLine{warn("a")}, 7, "warn: a\n(7 more lines were not kept)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := logText(tt.lines, tt.dropped); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLogTextFits(t *testing.T) {
	long := plugins.LogLine{Text: strings.Repeat("é", response.MaxLog)}
	many := make([]plugins.LogLine, 1000)
	for i := range many {
		many[i].Text = strings.Repeat("x", 100)
	}
	for name, lines := range map[string][]plugins.LogLine{
		"one long line": {long}, "many lines": many, "escapes": {{Text: strings.Repeat("\x01", response.MaxLog)}},
	} {
		got := logText(lines, 5)
		if len(got) > response.MaxLog || !utf8.ValidString(got) || !strings.HasSuffix(got, " more lines were not kept)\n") {
			t.Errorf("%s: %d bytes that end in %q, want at most %d", name, len(got), got[max(0, len(got)-60):], response.MaxLog)
		}
		if len(got) < response.MaxLog/2 {
			t.Errorf("%s: %d bytes, want most of the room to be used", name, len(got))
		}
	}
}

func TestRecord(t *testing.T) {
	if got, want := record("trap: a\n\tat main.f\xff\x07", 100), "trap: a\n\\tat main.f\uFFFD\\x07"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := record("abcé", 4); got != "abc" {
		t.Errorf("cut to 4 bytes: %q, want abc", got)
	}
}
