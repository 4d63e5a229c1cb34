package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll returns the events as "name|data" and what the stream ended with.
func readAll(r io.Reader, maxEvent int) (events []string, err error) {
	d := newDecoder(r, maxEvent)
	for {
		ev, err := d.next()
		if err != nil {
			return events, err
		}
		events = append(events, string(ev.name)+"|"+string(ev.data))
	}
}

func TestDecoder(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"one", "data: a\n\n", []string{"|a"}},
		{"no space", "data:a\n\n", []string{"|a"}},
		{"two spaces", "data:  a\n\n", []string{"| a"}},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"|a", "|b"}},
		{"CR", "data: a\r\rdata: b\r\r", []string{"|a", "|b"}},
		{"mixed", "data: a\r\ndata: b\n\rdata: c\n\n", []string{"|a\nb", "|c"}},
		{"several lines", "data: a\ndata\ndata: b\n\n", []string{"|a\n\nb"}},
		{"comments", ": hi\n\n:\ndata: a\n: there\n\n", []string{"|a"}},
		{"name", "event: error\ndata: a\n\ndata: b\n\n", []string{"error|a", "|b"}},
		{"name without data", "event: error\n\ndata: b\n\n", []string{"|b"}},
		{"other fields", "id: 1\nretry: 5\nodd\ndata: a\n\n", []string{"|a"}},
		{"byte order mark", "\uFEFFdata: a\n\n", []string{"|a"}},
		{"mark later is no mark", "data: a\n\n\uFEFFdata: b\n\n", []string{"|a"}},
		{"empty data", "data\n\ndata: \n\n", []string{"|", "|"}},
		{"no blank line at the end", "data: a\n", []string{"|a"}},
		{"no line end at the end", "data: a", []string{"|a"}},
		{"runes", "data: Grüße, 世界 🙂\n\n", []string{"|Grüße, 世界 🙂"}},
		{"colons", "data: a: b:c\n\n", []string{"|a: b:c"}},
		{"nothing", "", nil},
		{"blank lines", "\n\r\n\r\r\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"whole": strings.NewReader(tt.in), "bytewise": iotest.OneByteReader(strings.NewReader(tt.in)),
				"data with EOF": iotest.DataErrReader(strings.NewReader(tt.in)),
			} {
				got, err := readAll(r, 1<<10)
				if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) || !errors.Is(err, io.EOF) {
					t.Errorf("%s: got %q, %v; want %q", name, got, err, tt.want)
				}
			}
		})
	}
}

// A lone CR ends a line at once: the decoder must not wait for what follows.
func TestDecoderDoesNotWaitForLF(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()                        // a pipe's Close never fails
	go func() { _, _ = w.Write([]byte("data: a\r\n\r")) }() // the LF never comes
	if ev, err := newDecoder(r, 100).next(); err != nil || string(ev.data) != "a" {
		t.Errorf("got %q, %v; want a", ev.data, err)
	}
}

func TestDecoderCaps(t *testing.T) {
	const size = 5000
	fit := "data: " + strings.Repeat("x", size-len("data: ")) + "\n\n"
	if got, err := readAll(strings.NewReader(fit+fit), size); len(got) != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("at the cap: got %d events, %v; want 2", len(got), err)
	}
	for name, in := range map[string]string{
		"line":           "data: a\n\ndata: " + strings.Repeat("x", size) + "\n\n",
		"line, no end":   "data: a\n\n" + strings.Repeat("x", size+1),
		"lines":          "data: a\n\n" + strings.Repeat("data: x\n", size),
		"comments":       "data: a\n\n" + strings.Repeat(": x\n", size),
		"ignored fields": "data: a\n\n" + strings.Repeat("id: x\n", size),
	} {
		if got, err := readAll(strings.NewReader(in), size); len(got) != 1 || !errors.Is(err, errEventTooLong) {
			t.Errorf("%s: got %d events, %v; want 1 and then %v", name, len(got), err, errEventTooLong)
		}
	}
	if got, err := readAll(strings.NewReader(strings.Repeat(": keep-alive\n\n", size)+"data: a\n\n"), size); len(got) != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("keep-alives: got %d events, %v; want 1", len(got), err)
	}
}

func TestDecoderBrokenStream(t *testing.T) {
	broken := errors.New("broken")
	got, err := readAll(io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(broken)), 100)
	if len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("got %q, %v; want only the whole event and the reader's error", got, err)
	}
	if _, err := readAll(noProgress{}, 100); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want %v", err, io.ErrNoProgress)
	}
}

type noProgress struct{}

func (noProgress) Read([]byte) (int, error) { return 0, nil }

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("data: a\r\n\r\n: c\nevent: error\ndata:b\rdata: c\n\n"), uint8(3))
	f.Add([]byte("\xef\xbb\xbfdata: \xf0\x9f\x99\x82\n\ndata"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		const maxEvent = 64
		want, wantErr := readAll(bytes.NewReader(in), maxEvent)
		got, gotErr := readAll(&pieces{b: in, n: int(step%7) + 1}, maxEvent)
		if fmt.Sprintf("%q %v", got, gotErr) != fmt.Sprintf("%q %v", want, wantErr) {
			t.Fatalf("got %q, %v in pieces; whole %q, %v", got, gotErr, want, wantErr)
		}
		for _, ev := range got {
			if len(ev) > maxEvent+1 || strings.Contains(ev, "\r") {
				t.Fatalf("event %q is too long or holds a line end", ev)
			}
		}
	})
}

// pieces is a reader of n bytes at a time.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}
