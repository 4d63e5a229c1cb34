package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/host/queue"
)

// sse is the sink that writes an event stream. Each frame is one Write and one Flush, with LF
// line ends: there are clients that lose an event whose end comes in another
// chunk.
type sse struct {
	x   *exchange
	buf bytes.Buffer
}

// open writes the head of the answer, once.
func (s *sse) open() error {
	if s.x.status != 0 {
		return nil
	}
	h := s.x.w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	s.x.allowWrite()
	defer s.x.restWrite()
	s.x.begin(http.StatusOK, "text/event-stream")
	return s.flush()
}

// event writes one frame; kind "" leaves the event line out.
func (s *sse) event(kind string, data []byte) error {
	if s.x.status == 0 {
		if err := s.open(); err != nil {
			return err
		}
	}
	s.buf.Reset()
	if kind != "" {
		s.buf.WriteString("event: ")
		s.buf.WriteString(kind)
		s.buf.WriteByte('\n')
	}
	s.buf.WriteString("data: ")
	s.buf.Write(oneLine(data))
	s.buf.WriteString("\n\n")
	s.x.allowWrite()
	defer s.x.restWrite()
	if _, err := s.x.w.Write(s.buf.Bytes()); err != nil {
		return fmt.Errorf("api: event: %w: %w", queue.ErrClientGone, err)
	}
	return s.flush()
}

// done writes the end of a complete stream.
func (s *sse) done() error { return s.event("", []byte("[DONE]")) }

// outcome answers a request that ended before its first event.
func (s *sse) outcome(o queue.Outcome) error { return s.x.outcome(o) }

func (s *sse) flush() error {
	if err := s.x.rc.Flush(); err != nil {
		return fmt.Errorf("api: event: %w: %w", queue.ErrClientGone, err)
	}
	return nil
}

// oneLine returns data without line ends, which would end the frame's line. In
// JSON they can only be insignificant space.
func oneLine(data []byte) []byte {
	if !bytes.ContainsAny(data, "\r\n") {
		return data
	}
	var b bytes.Buffer
	if json.Compact(&b, data) == nil {
		return b.Bytes()
	}
	return bytes.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, data)
}
