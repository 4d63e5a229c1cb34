package upstream

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/casemate/casemate/host/object"
	"github.com/casemate/casemate/host/queue"
)

// stream hands the data of each event to the caller.
func (x *exchange) stream(rep *Reply, body io.Reader) *Error {
	d := newDecoder(body, x.maxEvent())
	for {
		ev, err := d.next()
		if errors.Is(err, io.EOF) {
			return x.ended()
		}
		if err != nil {
			return x.broken(err, "cut")
		}
		data := bytes.TrimSpace(ev.data)
		switch {
		case len(data) == 0: // sent by some to keep the connection alive
			continue
		case string(data) == "[DONE]":
			rep.Done = true
			x.tail(body)
			return x.ended()
		}
		x.firstEvent(rep)
		if err := x.deliver(ev.name, data); err != nil {
			return err
		}
		if x.responses() && terminal(data) {
			rep.Done = true
			x.tail(body)
			return x.ended()
		}
	}
}

// responses reports whether the call is one of Responses: its streams end with
// a terminal event, with or without [DONE].
func (x *exchange) responses() bool { return x.call.Path == ResponsesPath }

// maxEvent is what one event may hold. The last one of Responses repeats the
// whole answer.
func (x *exchange) maxEvent() int {
	limits := x.client.limits
	if x.responses() {
		return int(max(int64(limits.MaxEventBytes), min(limits.MaxReplyBytes, 1<<30)))
	}
	return limits.MaxEventBytes
}

// announces reports whether an event of Responses says no more than that the
// response exists: another target may yet serve the call.
func announces(data []byte) bool {
	switch string(object.Value(data, "type")) {
	case `"response.created"`, `"response.queued"`, `"response.in_progress"`:
		return true
	}
	return false
}

// terminal reports whether an event of Responses that is no error ends its
// stream.
func terminal(data []byte) bool {
	if !bytes.Contains(data, []byte("response.completed")) && !bytes.Contains(data, []byte("response.incomplete")) {
		return false
	}
	kind := string(object.Value(data, "type"))
	return kind == `"response.completed"` || kind == `"response.incomplete"`
}

// ended returns the error of a stream that ended in good order: none, unless
// nothing came.
func (x *exchange) ended() *Error {
	if !x.begun {
		return fail(queue.UpstreamInvalid, "empty stream")
	}
	return nil
}

// deliver checks one event's data and hands it to the caller.
func (x *exchange) deliver(name, data []byte) *Error {
	if data[0] != '{' || !json.Valid(data) {
		return fail(queue.UpstreamInvalid, "event is not a JSON object")
	}
	if mayHoldError(data) {
		if e := embedded(data); e != nil {
			return e
		}
		if e := x.failedEvent(data); e != nil {
			return e
		}
	}
	if string(name) == "error" {
		return fromEnvelope(data)
	}
	x.begun = x.begun || !x.responses() || !announces(data)
	if err := x.call.OnData(data); err != nil {
		e := fail(queue.HostError, "not taken")
		if errors.Is(err, ErrInvalid) {
			e = fail(queue.UpstreamInvalid, "event cannot be read")
		}
		if x.parent.Err() != nil {
			e = interrupted(x.parent)
		}
		e.cause = err
		return e
	}
	return nil
}

// failedEvent returns the error of an event of Responses that is one: an error
// without an envelope, or the end of a response that failed. nil: it is none.
func (x *exchange) failedEvent(data []byte) *Error {
	if !x.responses() {
		return nil
	}
	switch string(object.Value(data, "type")) {
	case `"error"`:
		return fromEnvelope(data)
	case `"response.failed"`:
		_ = x.call.OnData(data) // for its usage: what it is is known
		var failed struct {
			Response struct {
				Error json.RawMessage `json:"error"`
			} `json:"response"`
		}
		_ = json.Unmarshal(data, &failed) // a failure that says nothing is one all the same
		return fromEnvelope(failed.Response.Error)
	}
	return nil
}

// mayHoldError is a cheap test that most events fail: the key stands in them
// neither plainly nor, perhaps, escaped.
func mayHoldError(data []byte) bool {
	return bytes.Contains(data, []byte(`"error"`)) || bytes.Contains(data, []byte(`\u00`))
}

// whole reads a body that is not an event stream.
func (x *exchange) whole(rep *Reply, body io.Reader) *Error {
	var b bytes.Buffer
	one := [1]byte{}
	n, err := io.ReadFull(body, one[:])
	if n == 1 {
		x.firstEvent(rep)
		b.Write(one[:])
		_, err = b.ReadFrom(body)
	}
	switch {
	case errors.Is(err, io.EOF):
		return fail(queue.UpstreamInvalid, "empty body")
	case err != nil:
		return x.broken(err, "cut")
	case !object.Valid(b.Bytes()):
		return fail(queue.UpstreamInvalid, "body is not a JSON object")
	}
	if e := embedded(b.Bytes()); e != nil {
		return e
	}
	rep.Body = b.Bytes()
	return nil
}

// firstEvent notes that the answer has begun.
func (x *exchange) firstEvent(rep *Reply) {
	if rep.FirstEvent == 0 {
		rep.FirstEvent = max(time.Since(x.start), 1)
	}
	if x.first != nil {
		x.first.Stop()
	}
}

// tail reads what may follow [DONE], so that the connection can be used again,
// but never waits long for it.
func (x *exchange) tail(body io.Reader) {
	t := time.AfterFunc(tailTime, func() { x.cancel(nil) })
	defer t.Stop()
	_, _ = io.CopyN(io.Discard, body, maxTail) // how the body ends no longer matters
}

// A watchedBody ends the call when its upstream is silent for too long. Time
// that the caller spends between two reads does not count.
type watchedBody struct {
	x     *exchange
	r     io.Reader
	timer *time.Timer
	armed bool // a byte has come: silence before the first is bounded elsewhere
}

func (b *watchedBody) Read(p []byte) (int, error) {
	idle := b.x.client.limits.Idle
	if b.armed {
		if b.timer == nil {
			b.timer = time.AfterFunc(idle, func() { b.x.cancel(errIdle) })
		} else {
			b.timer.Reset(idle)
		}
	}
	n, err := b.r.Read(p)
	if b.timer != nil {
		b.timer.Stop()
	}
	b.armed = b.armed || n > 0
	return n, err
}

// A cappedBody fails with errTooLong past so many bytes.
type cappedBody struct {
	r    io.Reader
	left int64
}

func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLong
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more than may come tells the end from the excess
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errTooLong
	}
	return n, err
}

// A gunzip decompresses; it reads the head of the format with the first byte.
type gunzip struct {
	r io.Reader
	z *gzip.Reader
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.z == nil {
		z, err := gzip.NewReader(g.r)
		if err != nil {
			return 0, err
		}
		g.z = z
	}
	return g.z.Read(p)
}
