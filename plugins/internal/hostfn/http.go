package hostfn

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// httpFetch sends one request by the host's HTTP port.
func (s *Session) httpFetch(ctx context.Context, head, body []byte) (reply, error) {
	var h abi.HTTPHead
	if json.Unmarshal(head, &h) != nil || h.TimeoutMS < 0 || h.MaxBytes < 0 {
		return plain(abi.StatusBadRequest, abi.ErrorRequest), nil
	}
	switch {
	case s.env.HTTP == nil:
		return reply{}, errNoPort
	case h.Stream && len(s.streams) >= abi.MaxStreams:
		return reply{}, abi.EDQUOT
	}
	if h.Method != "" && h.Method != "GET" && h.Method != "HEAD" {
		if err := s.effect(ctx); err != nil {
			return reply{}, err
		}
	}
	resp, err := s.env.HTTP.Do(ctx, httpRequest(h, body))
	if err != nil {
		return s.httpFailed(ctx, err)
	}
	if h.Stream {
		out := httpReply(resp)
		out.Stream = s.addStream(resp.Body)
		return reply{head: out}, nil
	}
	defer resp.Body.Close()
	data, err := s.readAll(resp.Body)
	if err != nil {
		return s.httpFailed(ctx, err)
	}
	return reply{head: httpReply(resp), body: data}, nil
}

// httpRequest returns what the port is asked. The body stays the guest's
// memory: Do does not keep it.
func httpRequest(h abi.HTTPHead, body []byte) *capability.HTTPRequest {
	r := &capability.HTTPRequest{
		Method: h.Method, URL: h.URL, Body: body, MaxBytes: h.MaxBytes,
		Timeout: time.Duration(min(h.TimeoutMS, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond,
	}
	if !h.Stream {
		if r.MaxBytes == 0 {
			r.MaxBytes = abi.DefaultHTTPBody
		}
		r.MaxBytes = min(r.MaxBytes, abi.MaxHTTPBody)
	}
	for _, field := range h.Headers {
		r.Header = append(r.Header, capability.HTTPHeader{Name: field[0], Value: field[1]})
	}
	return r
}

func httpReply(resp *capability.HTTPResponse) abi.HTTPReply {
	out := abi.HTTPReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, HTTPStatus: resp.Status}
	for _, f := range resp.Header {
		out.Headers = append(out.Headers, [2]string{f.Name, f.Value})
	}
	return out
}

// httpStatus holds the op's status for each closed word of an HTTP port.
var httpStatus = map[string]int{
	abi.HTTPInvalidURL:       abi.StatusBadRequest,
	abi.HTTPInvalidMethod:    abi.StatusBadRequest,
	abi.HTTPInvalidHeader:    abi.StatusBadRequest,
	abi.HTTPRequestTooLarge:  abi.StatusTooLarge,
	abi.HTTPDenied:           abi.StatusDenied,
	abi.HTTPSecretDenied:     abi.StatusDenied,
	abi.HTTPNetwork:          abi.StatusBadGateway,
	abi.HTTPTooManyRedirects: abi.StatusBadGateway,
	abi.HTTPResponseTooLarge: abi.StatusBadGateway,
	abi.HTTPTimeout:          abi.StatusTimeout,
}

// httpFailed answers what the port said of a failure. A word that is not
// known, or an error that is no HTTPError, is a mistake of the port.
func (s *Session) httpFailed(ctx context.Context, err error) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, ctx.Err()
	}
	e, ok := errors.AsType[*capability.HTTPError](err)
	if !ok {
		return reply{}, err
	}
	status, ok := httpStatus[e.Code]
	if !ok {
		return reply{}, err
	}
	if e.Audit != "" {
		s.audit(abi.OpHTTPFetch, e.Audit)
	}
	return plain(status, e.Code), nil
}

// readAll reads a body whose length the port bounds, and debits as it goes.
func (s *Session) readAll(body io.Reader) ([]byte, error) {
	var data []byte
	part := make([]byte, chunk)
	for {
		n, err := body.Read(part)
		s.spend(n)
		data = append(data, part[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}
