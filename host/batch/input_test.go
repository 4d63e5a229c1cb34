package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// later is a maker that cannot make requests of the lines from c3 on while it is
// away.
type later struct {
	fakeMaker
	away bool
}

func (l *later) Prepare(ctx context.Context, t, p string, body []byte) (queue.New, []response.Event, error) {
	if l.away && strings.Contains(string(body), `"q3"`) {
		return queue.New{}, nil, errors.New("store is away")
	}
	return l.fakeMaker.Prepare(ctx, t, p, body)
}

// memory is a file in memory.
type memory []byte

func (m memory) Chunk(_ context.Context, _ queue.ID, n int) ([]byte, error) {
	from := min(n*store.FileChunk, len(m))
	return m[from:min(from+store.FileChunk, len(m))], nil
}

// TestLinesAcrossChunks: lines are those of the text, wherever chunks end.
func TestLinesAcrossChunks(t *testing.T) {
	for _, size := range []int{1, 7, store.FileChunk - 1, store.FileChunk, store.FileChunk + 1, 3*store.FileChunk + 5} {
		for _, end := range []string{"", "\n"} {
			long := strings.Repeat("x", size)
			m := memory("a\n" + long + "\n\n" + long + "b" + end)
			c := chunks{store: m}
			var got []string
			for at := int64(0); ; {
				l, ok, err := c.line(t.Context(), at, 1<<30)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				again, err := c.read(t.Context(), l.offset, l.size)
				if err != nil || !bytes.Equal(again, l.data) {
					t.Fatalf("size %d: read %d bytes, %v, want the line's", size, len(again), err)
				}
				got = append(got, string(l.data))
				at = l.next
			}
			if len(got) != 4 || got[0] != "a" || got[1] != long || got[2] != "" || got[3] != long+"b" {
				t.Errorf("size %d: got %d lines", size, len(got))
			}
		}
	}
	c := chunks{store: memory("abc")}
	if _, err := c.read(t.Context(), 1, 5); !errors.Is(err, errCut) {
		t.Errorf("read past the end: got %v", err)
	}
}

// FuzzLines: whatever an input holds, each of its lines is taken, blank or told
// to be wrong, and what is taken can be made a request of.
func FuzzLines(f *testing.F) {
	f.Add([]byte(lines(3)))
	f.Add([]byte(line("a", "1") + "\r\n\n" + line("a", "2") + "\nnope"))
	f.Add([]byte("\xef\xbb\xbf" + line("a", "1")))
	f.Add([]byte(`{"custom_id":"x","custom_id":"y","method":"POST","url":"/v1/chat/completions","body":{"model":"m1"}}`))
	f.Add([]byte{0, '\n', 0xff, '\n'})
	f.Fuzz(func(t *testing.T, data []byte) {
		h := &held{Runner: New(nil, fakeMaker{}, Outputs{}, Options{MaxLine: 300}), b: store.Batch{Tenant: tenant, Endpoint: path}}
		h.input = chunks{store: memory(data)}
		c := &checking{held: h, taken: map[string]bool{}}
		n := 0
		for at := int64(0); at < int64(len(data)); n++ {
			l, ok, err := h.input.line(t.Context(), at, 300)
			if err != nil || !ok || l.next <= at || len(l.data) > 301 {
				t.Fatalf("line at %d: got %+v, %t, %v", at, l, ok, err)
			}
			at = l.next
			c.check(n+1, l)
		}
		if len(c.lines)+len(c.faults) > n {
			t.Fatalf("%d lines: %d taken, %d faults", n, len(c.lines), len(c.faults))
		}
		for _, l := range c.lines {
			body, err := h.body(t.Context(), l)
			if err != nil || !json.Valid(body) || body[0] != '{' || l.CustomID == "" {
				t.Fatalf("line %+v: body %q, %v", l, body, err)
			}
		}
	})
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"{\n \"a\": 1\n}\n": `{"a":1}`,
		"":                  `""`,
		"plain\ntext":       `"plain\ntext"`,
		"\xff":              `"\ufffd"`,
	} {
		if got := string(oneLine([]byte(in))); got != want || strings.Contains(got, "\n") {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
