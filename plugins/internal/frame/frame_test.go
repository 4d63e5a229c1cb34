package frame_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/sdk/abi"
)

func TestText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"aé", 2, "a"},
		{"a€", 3, "a"},
		{"a€", 4, "a€"},
		{"😀😀", 7, "😀"},
		{"\xff\xff", 8, "\uFFFD"},
		{"a\xff", 3, "a"},
		{"", 0, ""},
		{"abc", 0, ""},
	} {
		if got := frame.Text([]byte(tt.in), tt.n); got != tt.want {
			t.Errorf("Text(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("a€\xff😀"), uint8(4))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		got := frame.Text(b, int(n))
		if len(got) > int(n) || !utf8.ValidString(got) {
			t.Errorf("Text(%q, %d) = %q", b, n, got)
		}
		if utf8.Valid(b) && (!strings.HasPrefix(string(b), got) || len(b) <= int(n) && got != string(b)) {
			t.Errorf("Text(%q, %d) = %q changes valid text", b, n, got)
		}
	})
}

func TestLog(t *testing.T) {
	write := func(l *frame.Log, stream int, p []byte) {
		t.Helper()
		if err := l.Print(t.Context(), stream, p); err != nil {
			t.Error(err)
		}
	}
	l := frame.NewLog(3, 100)
	write(l, frame.Stdout, []byte("a\n\nb"))
	write(l, frame.Stderr, []byte("c"))
	got := l.Lines()
	if len(got) != 3 || got[0].Text != "a" || got[1].Text != "" || got[2].Text != "b" || l.Dropped() != 1 {
		t.Errorf("lines = %q, dropped = %d; want a, empty, b and 1", got, l.Dropped())
	}

	l = frame.NewLog(100, 10)
	for range 4 {
		l.Add(abi.LevelInfo, []byte("123€56"))
	}
	got = l.Lines()
	if len(got) != 2 || got[1].Text != "1" && got[1].Text != "12" || l.Dropped() != 2 {
		t.Errorf("lines = %q, dropped = %d; want 10 bytes at most and 2", got, l.Dropped())
	}

	l = frame.NewLog(2, 1<<20)
	for range 10 {
		write(l, frame.Stdout, []byte(strings.Repeat("x", frame.MaxLine/2)))
	}
	if got = l.Lines(); len(got) != 1 || len(got[0].Text) != frame.MaxLine {
		t.Errorf("%d lines, want one of %d bytes", len(got), frame.MaxLine)
	}
}

// TestPrintStops prints many parts: nothing is looked at once the log is full,
// or its call over.
func TestPrintStops(t *testing.T) {
	parts := make([][]byte, 1000)
	for i := range parts {
		parts[i] = []byte("line\n")
	}
	l := frame.NewLog(3, 100)
	if err := l.Print(t.Context(), frame.Stdout, parts...); err != nil || len(l.Lines()) != 3 || l.Dropped() != 1 {
		t.Errorf("print = %v: %d lines, %d dropped; want 3 and one look more", err, len(l.Lines()), l.Dropped())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	l = frame.NewLog(3, 100)
	if err := l.Print(over, frame.Stdout, parts...); !errors.Is(err, context.Canceled) || len(l.Lines()) != 0 {
		t.Errorf("print = %v: %d lines; want canceled and none", err, len(l.Lines()))
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := frame.NewClock(time.Now())
		m0, w0 := c.Monotonic(), c.Wall()
		time.Sleep(1500 * time.Microsecond)
		if m, w := c.Monotonic()-m0, c.Wall()-w0; m != 1e6 || w != 1e6 {
			t.Errorf("after 1.5 ms the clocks moved by %d and %d ns, want one step of 1 ms", m, w)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := c.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("sleep = %v after %v, want the deadline after 1 s", err, time.Since(begin))
		}
	})
}

func TestPureClock(t *testing.T) {
	c := frame.NewPureClock()
	begin := time.Now()
	for range 3 {
		if err := c.Sleep(t.Context(), math.MaxInt64); err != nil {
			t.Fatal(err)
		}
	}
	if c.Wall() != math.MaxInt64 || c.Monotonic() != math.MaxInt64 || time.Since(begin) > time.Minute {
		t.Errorf("clocks = %d, %d; want both at their end", c.Wall(), c.Monotonic())
	}
	c.SetNow(math.MaxInt64)
	if c.Wall() < 0 {
		t.Errorf("wall clock = %d", c.Wall())
	}
}

func TestOutput(t *testing.T) {
	f := frame.Frame{MaxOutput: 4}
	if e := f.Write([]byte("12345")); e != abi.E2BIG || f.OutputCut() || !f.OutputRefused() {
		t.Errorf("first write over the cap = %d, cut %v, refused %v", e, f.OutputCut(), f.OutputRefused())
	}
	if e := f.Write([]byte("1234")); e != 0 || string(f.Output()) != "1234" {
		t.Errorf("write = %d, output %q", e, f.Output())
	}
	if e := f.Write([]byte("5")); e != abi.E2BIG || !f.OutputCut() {
		t.Errorf("write over the cap = %d, cut %v", e, f.OutputCut())
	}
}
