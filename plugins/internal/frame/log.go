package frame

import (
	"bytes"

	"github.com/casemate/casemate/sdk/abi"
)

// MaxLine is the longest line of a log that is kept, in bytes.
const MaxLine = 8 << 10

// Line is one captured line.
type Line struct {
	Level abi.Level
	Text  string
}

// Log captures what a guest logs and prints, up to a count and a volume. What
// does not fit is counted, not kept; it costs the guest's caller no memory.
type Log struct {
	lines    []Line
	left     int // lines
	leftSize int // bytes
	size     int // bytes kept
	dropped  int
	partial  [2][]byte // of standard output and error, without a newline yet
}

// NewLog returns a log that keeps up to lines lines and size bytes of text.
func NewLog(lines, size int) Log { return Log{left: lines, leftSize: size} }

// Add keeps one line. A level that is out of range counts as the nearest one.
func (l *Log) Add(level abi.Level, text []byte) {
	if l.left <= 0 || l.leftSize <= 0 {
		l.dropped++
		return
	}
	s := Text(text, min(MaxLine, l.leftSize))
	l.left--
	l.leftSize -= len(s)
	l.size += len(s)
	level = min(max(level, abi.LevelTrace), abi.LevelError)
	l.lines = append(l.lines, Line{Level: level, Text: s})
}

// The streams of Print.
const (
	Stdout = 0 // lines of level info
	Stderr = 1 // lines of level warn
)

// Print adds what the guest wrote to a stream, line by line, and reports
// whether the log takes more. The end of a line that is longer than MaxLine is
// dropped. It looks at every byte of p until the log is full.
func (l *Log) Print(stream int, p []byte) bool {
	for len(p) > 0 {
		if l.left <= 0 || l.leftSize <= 0 {
			l.dropped++
			return false
		}
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		part := l.partial[stream]
		part = append(part, line[:min(len(line), MaxLine-len(part))]...)
		if !ended {
			l.partial[stream] = part
			return true
		}
		l.partial[stream] = part[:0]
		l.Add(streamLevel(stream), part)
		p = rest
	}
	return true
}

func streamLevel(stream int) abi.Level {
	if stream == Stderr {
		return abi.LevelWarn
	}
	return abi.LevelInfo
}

// Lines ends the lines that have no newline yet and returns all that was kept.
func (l *Log) Lines() []Line {
	for stream, part := range l.partial {
		if len(part) > 0 {
			l.Add(streamLevel(stream), part)
			l.partial[stream] = nil
		}
	}
	return l.lines
}

// Dropped returns how many lines, or writes of many lines, were not kept.
func (l *Log) Dropped() int { return l.dropped }

// Size returns how many bytes of text were kept.
func (l *Log) Size() int { return l.size }
