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
	l := frame.NewLog(3, 100)
	l.Print(frame.Stdout, []byte("a\n\nb"))
	l.Print(frame.Stderr, []byte("c"))
	got := l.Lines()
	if len(got) != 3 || got[0].Text != "a" || got[1].Text != "" || got[2].Text != "b" || l.Dropped() != 1 || l.Size() != 2 {
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
		l.Print(frame.Stdout, []byte(strings.Repeat("x", frame.MaxLine/2)))
	}
	if got = l.Lines(); len(got) != 1 || len(got[0].Text) != frame.MaxLine {
		t.Errorf("%d lines, want one of %d bytes", len(got), frame.MaxLine)
	}
}

// TestPrintStops prints many lines: nothing is looked at once the log is full.
func TestPrintStops(t *testing.T) {
	l := frame.NewLog(3, 100)
	for i := range 5 {
		if more := l.Print(frame.Stdout, []byte("line\n")); more != (i < 3) {
			t.Errorf("print %d asks for more: %v", i, more)
		}
	}
	if len(l.Lines()) != 3 || l.Dropped() != 2 {
		t.Errorf("%d lines, %d dropped; want 3 and 2", len(l.Lines()), l.Dropped())
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := frame.NewPureClock()
		if err := start.Sleep(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		c := frame.NewClock()
		c.Continue(start)
		m0, w0 := c.Monotonic(), c.Wall()
		if m0 != start.Monotonic() || w0 != time.Now().UnixNano() {
			t.Errorf("clocks = %d, %d; want those of the start, %d, and of the host", m0, w0, start.Monotonic())
		}
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

// TestStartClock: guests that start anywhere at any time see the same.
func TestStartClock(t *testing.T) {
	c := frame.NewPureClock()
	if c.Wall() != time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano() || c.Monotonic() != int64(time.Second) {
		t.Errorf("clocks = %d, %d", c.Wall(), c.Monotonic())
	}
	if err := c.Sleep(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	c.SetNow(5)
	if c.Wall() != 5e6 || c.Monotonic() != 2e9 {
		t.Errorf("clocks = %d, %d; want 5 ms, and 1 s more than at the start", c.Wall(), c.Monotonic())
	}
	next := frame.NewPureClock()
	next.SetNow(7)
	next.Continue(c)
	if next.Wall() != 7e6 || next.Monotonic() != 2e9 {
		t.Errorf("clocks of the next call = %d, %d; want 7 ms, and the monotonic one to go on", next.Wall(), next.Monotonic())
	}
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
	if e := f.Room(5); e != abi.E2BIG || f.OutputCut() || !f.OutputRefused() {
		t.Errorf("first write over the cap = %d, cut %v, refused %v", e, f.OutputCut(), f.OutputRefused())
	}
	if e := f.Room(4); e != 0 {
		t.Errorf("room for 4 = %d", e)
	}
	f.Write([]byte("12"))
	f.Write([]byte("34"))
	if string(f.Output()) != "1234" {
		t.Errorf("output %q", f.Output())
	}
	if e := f.Room(1); e != abi.E2BIG || !f.OutputCut() {
		t.Errorf("write over the cap = %d, cut %v", e, f.OutputCut())
	}
}

func TestBudget(t *testing.T) {
	for _, tt := range []struct {
		pure bool
		left uint64
		want int64
	}{{false, 7, 7}, {false, math.MaxUint64, math.MaxInt64}, {true, 7, 100}} {
		f := frame.Frame{Pure: tt.pure, Fuel: 100}
		if got, ok := f.Budget(abi.BudgetFuel, tt.left); got != tt.want || !ok {
			t.Errorf("pure %v: fuel = %d, %v; want %d", tt.pure, got, ok, tt.want)
		}
	}
}
