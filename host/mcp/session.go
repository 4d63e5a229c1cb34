package mcp

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// The bounds of a session that no option changes.
const (
	maxEvent    = 4 << 20 // bytes of one event of a server's stream
	closingTime = 2 * time.Second
)

// session is a connection to a server, for one operation.
type session struct {
	*sdk.ClientSession
	client *Client
	asking context.Context // the operation's
	cancel context.CancelFunc
	wire   *wire
}

// open connects to a server. ctx is the operation's: it bounds what is asked in
// the session, and not how the session ends.
func (c *Client) open(ctx context.Context, s loop.RemoteServer) (*session, error) {
	if err := c.Allowed(s.URL); err != nil {
		return nil, remote(codeDenied, denied)
	}
	if err := c.Check(s.URL, s.Credentials); err != nil {
		return nil, remote(codeDenied, denied)
	}
	server, err := url.Parse(s.URL)
	if err != nil {
		return nil, remote(codeDenied, denied)
	}
	x := &session{client: c, asking: ctx}
	var all context.Context
	all, x.cancel = context.WithCancel(context.WithoutCancel(ctx))
	x.wire = newWire(all, x.cancel, ctx, c.egress, server, s.Credentials, c.options.MaxAnswers)
	if err := x.connect(ctx, s.URL); err != nil {
		err = x.explain(err)
		x.cancel()
		return nil, err
	}
	return x, nil
}

// connect speaks the protocol's own way over HTTP, or the one before it with a
// server that knows that alone.
func (x *session) connect(ctx context.Context, endpoint string) error {
	hc := &http.Client{
		Transport: x.wire,
		// The wire has followed what may be followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "casemate", Version: x.client.options.Version}, &sdk.ClientOptions{
		Capabilities:   &sdk.ClientCapabilities{},
		MultiRoundTrip: &sdk.MultiRoundTripOptions{Disabled: true},
	})
	client.AddReceivingMiddleware(refuse)
	var err error
	x.ClientSession, err = client.Connect(ctx, &sdk.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: hc, MaxRetries: 2, DisableStandaloneSSE: true, MaxEventSize: maxEvent,
	}, nil)
	status, session, fault := x.wire.last()
	old := status == http.StatusBadRequest || status == http.StatusNotFound || status == http.StatusMethodNotAllowed
	if err == nil || !old || session || fault != nil || ctx.Err() != nil {
		return err
	}
	// The stream of that transport is a request of its own, which lasts as long
	// as the session.
	lasts, stop := context.WithCancel(x.wire.ctx)
	unlink := context.AfterFunc(ctx, stop)
	defer unlink()
	x.ClientSession, err = client.Connect(lasts, &sdk.SSEClientTransport{
		Endpoint: endpoint, HTTPClient: hc, MaxEventSize: maxEvent,
	}, nil)
	if err != nil {
		stop()
	}
	return err
}

// refuse lets a server ask nothing of this host but whether it is there.
func refuse(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (sdk.Result, error) {
		if method == "ping" || strings.HasPrefix(method, "notifications/") {
			return next(ctx, method, req)
		}
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: "not supported"}
	}
}

// close ends the session, which nobody waits for. A server is told of a call
// that was given up before it is told that the session ended.
func (x *session) close() {
	gaveUp := x.asking.Err() != nil
	x.client.ends.Go(func() {
		defer x.cancel()
		end := time.AfterFunc(closingTime, x.cancel)
		defer end.Stop()
		if gaveUp {
			select {
			case <-x.wire.told:
			case <-x.wire.ctx.Done():
			}
		}
		x.wire.close()
		_ = x.Close() // there is nobody to tell
	})
}

// The codes of a RemoteError, and what is told with them.
const (
	codeDenied       = "denied"
	codeUnreachable  = "unreachable"
	codeUnauthorized = "unauthorized"
	codeInvalid      = "invalid"
	codeTimeout      = "timeout"

	denied       = "This host may not ask that MCP server."
	unreachable  = "The MCP server could not be reached."
	unauthorized = "The MCP server did not accept the credentials, or wants some."
	invalid      = "The MCP server's answer could not be read."
	tooLong      = "The MCP server's answer is too long."
	late         = "The MCP server did not answer in time."
)

// errLost: the server does not know the session any more, so it did nothing.
var errLost = errors.New("mcp: the server gave the session up")

// explain returns what may be told of an error of the session: a *RemoteError,
// errLost, an answer of the server's own, or the end of the operation's context.
func (x *session) explain(err error) error {
	if x.asking.Err() != nil {
		if errors.Is(x.asking.Err(), context.DeadlineExceeded) {
			return remote(codeTimeout, late)
		}
		return stopped(x.asking)
	}
	status, session, fault := x.wire.last()
	if fault != nil {
		return explainFault(fault)
	}
	var said *jsonrpc.Error
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return remote(codeUnauthorized, unauthorized)
	case status == http.StatusNotFound && session:
		return errLost
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return remote(codeUnreachable, unreachable)
	case errors.As(err, &said) && !slices.Contains(ours, said.Code):
		return said
	}
	return remote(codeInvalid, invalid)
}

// ours are the codes of errors that the protocol's library makes up itself:
// closing, rejected by the transport.
var ours = []int64{-32003, -32004, -32005}

// explainFault says what an exchange failed with.
func explainFault(err error) error {
	e, ok := errors.AsType[*capability.HTTPError](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return remote(codeTimeout, late)
		}
		return remote(codeInvalid, invalid)
	}
	switch e.Code {
	case abi.HTTPDenied, abi.HTTPSecretDenied:
		return remote(codeDenied, denied)
	case abi.HTTPTimeout:
		return remote(codeTimeout, late)
	case abi.HTTPResponseTooLarge:
		return remote(codeInvalid, tooLong)
	case abi.HTTPNetwork, abi.HTTPTooManyRedirects:
		return remote(codeUnreachable, unreachable)
	}
	return remote(codeInvalid, invalid)
}
