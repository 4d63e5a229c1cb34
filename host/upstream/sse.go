package upstream

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// errEventTooLong: an event, or one line of it, is over the cap.
var errEventTooLong = errors.New("event is too long")

// maxEmptyReads is how often a reader may return nothing before it is given up.
const maxEmptyReads = 100

// An event is one server-sent event. Its slices are valid until the next call
// of the decoder.
type event struct {
	name []byte // of the "event" field; nil: none
	data []byte // the "data" lines, joined by LF
}

// A decoder reads server-sent events. It takes LF, CRLF and CR line ends, also
// where a read splits them, skips comments, a byte order mark and the fields
// that do not matter here, and never holds more than one event.
type decoder struct {
	r       io.Reader
	max     int // bytes of one event
	buf     []byte
	start   int // of the unread part of buf
	scanned int // of the part of buf known to hold no line end
	end     int
	afterCR bool // an LF that comes next belongs to the line end before it
	begun   bool // the first line was read
	err     error

	name    []byte
	data    []byte
	hasData bool
	size    int // of the event so far, comments and ignored fields included
}

func newDecoder(r io.Reader, maxEvent int) *decoder {
	return &decoder{r: r, max: maxEvent, buf: make([]byte, min(4<<10, maxEvent+2))}
}

// next returns the next event that has data. At the end of the stream it
// returns what the last event held, even where its blank line is missing, and
// then the reader's error; after a broken stream it returns only the error.
func (d *decoder) next() (event, error) {
	d.name, d.data, d.hasData, d.size = nil, d.data[:0], false, 0
	for {
		line, err := d.line()
		if err != nil {
			if d.hasData && errors.Is(err, io.EOF) {
				d.hasData = false
				return event{name: d.name, data: d.data}, nil
			}
			return event{}, err
		}
		if len(line) == 0 {
			if d.hasData {
				return event{name: d.name, data: d.data}, nil
			}
			d.name, d.size = nil, 0
			continue
		}
		if d.size += len(line); d.size > d.max {
			d.err = errEventTooLong
			return event{}, d.err
		}
		d.field(line)
	}
}

// field takes one line that is not blank.
func (d *decoder) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) { // a comment has the empty name
	case "data":
		if d.hasData {
			d.data = append(d.data, '\n')
		}
		d.data = append(d.data, value...)
		d.hasData = true
	case "event":
		d.name = bytes.Clone(value)
	}
}

// line returns the next line without its end. The slice is valid until the
// next read. The last line of a stream needs no end.
func (d *decoder) line() ([]byte, error) {
	for {
		if d.afterCR && d.start < d.end {
			if d.buf[d.start] == '\n' {
				d.start++
				d.scanned = d.start
			}
			d.afterCR = false
		}
		if i := lineEnd(d.buf[d.scanned:d.end]); i >= 0 {
			i += d.scanned
			line := d.buf[d.start:i]
			d.afterCR = d.buf[i] == '\r'
			d.start, d.scanned = i+1, i+1
			return d.trimMark(line), nil
		}
		d.scanned = d.end
		if d.err == nil && d.end-d.start > d.max {
			d.err = errEventTooLong
		}
		if d.err != nil {
			if line := d.buf[d.start:d.end]; len(line) > 0 && errors.Is(d.err, io.EOF) {
				d.start = d.end
				return d.trimMark(line), nil
			}
			return nil, d.err
		}
		d.fill()
	}
}

// trimMark drops a byte order mark from the first line.
func (d *decoder) trimMark(line []byte) []byte {
	if d.begun {
		return line
	}
	d.begun = true
	if r, n := utf8.DecodeRune(line); r == '\uFEFF' {
		return line[n:]
	}
	return line
}

// fill reads more, making room first.
func (d *decoder) fill() {
	if d.start > 0 {
		copy(d.buf, d.buf[d.start:d.end])
		d.end -= d.start
		d.scanned -= d.start
		d.start = 0
	}
	if d.end == len(d.buf) {
		grown := make([]byte, min(2*len(d.buf), d.max+2))
		copy(grown, d.buf[:d.end])
		d.buf = grown
	}
	for range maxEmptyReads {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		if err != nil {
			d.err = err
			return
		}
		if n > 0 {
			return
		}
	}
	d.err = io.ErrNoProgress
}

// lineEnd returns the index of the first LF or CR, or -1.
func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}
