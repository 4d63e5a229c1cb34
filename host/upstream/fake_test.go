package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/casemate/casemate/host/upstream"
)

const (
	answer     = `{"choices":[{"message":{"content":"hi"}}]}`
	plainBody  = `{"model":"m","messages":[]}`
	streamBody = `{"model":"m","stream":true}`
)

// reply is what a fake endpoint does, by the clock of a synctest bubble.
type reply struct {
	delay  time.Duration // before the head
	status int           // 0: 200
	header map[string]string
	body   string
	// parts are written one after the other, each after its wait, in place of
	// body; then the body ends with end (nil: io.EOF), or stays open.
	parts []part
	end   error
	open  bool
}

type part struct {
	wait time.Duration
	text string
}

// call is a request as the fake endpoint got it.
type call struct {
	header http.Header
	body   string
}

// fake is an HTTP client without a network.
func fake(respond func(*call) reply) *http.Client {
	return &http.Client{Transport: transport(respond)}
}

type transport func(*call) reply

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r := f(&call{header: req.Header, body: string(b)})
	if err := wait(req.Context(), r.delay); err != nil {
		return nil, err
	}
	res := &http.Response{StatusCode: r.status, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1, Request: req}
	if r.status == 0 {
		res.StatusCode = http.StatusOK
	}
	for k, v := range r.header {
		res.Header.Set(k, v)
	}
	if r.parts == nil {
		r.parts = []part{{text: r.body}}
	}
	pr, pw := io.Pipe()
	go func() {
		for _, p := range r.parts {
			if err := wait(req.Context(), p.wait); err != nil {
				pw.CloseWithError(err)
				return
			}
			if _, err := io.WriteString(pw, p.text); err != nil {
				return
			}
		}
		if r.open {
			<-req.Context().Done()
			pw.CloseWithError(req.Context().Err())
			return
		}
		pw.CloseWithError(r.end)
	}()
	res.Body = pr
	return res, nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do makes one call of the target and returns its error, nil if there is none.
func do(t *testing.T, cl *upstream.Client, body string, onData func([]byte) error) *upstream.Error {
	t.Helper()
	_, err := cl.Do(t.Context(), upstream.Call{
		Target: "up/real", Model: "m", Path: "/chat/completions", Body: []byte(body), OnData: onData,
	})
	return typed(t, err)
}

func typed(t *testing.T, err error) *upstream.Error {
	t.Helper()
	if err == nil {
		return nil
	}
	var e *upstream.Error
	if !errors.As(err, &e) {
		t.Fatalf("got a %T: %v; want an *upstream.Error", err, err)
	}
	return e
}
