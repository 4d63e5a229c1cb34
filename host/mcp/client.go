package mcp

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins/egress"
)

// Options of a Client. The zero value asks no server.
type Options struct {
	// Rules say which servers may be asked. One without methods allows those of
	// the protocol: GET, POST and DELETE.
	Rules      []egress.Rule
	CallTime   time.Duration // of a tool call with its session; 0: 1 min
	ListTime   time.Duration // of listing a server's tools; 0: 30 s
	MaxOutput  int           // bytes of a tool's output; 0: 1 MiB
	MaxAnswers int64         // bytes of all that a server sends in one call; 0: 8 MiB
	Version    string        // of this host, told to servers
	RootCAs    *x509.CertPool
	Resolver   *net.Resolver
}

func (o Options) withDefaults() Options {
	if o.CallTime <= 0 {
		o.CallTime = time.Minute
	}
	if o.ListTime <= 0 {
		o.ListTime = 30 * time.Second
	}
	if o.MaxOutput <= 0 {
		o.MaxOutput = 1 << 20
	}
	if o.MaxAnswers <= 0 {
		o.MaxAnswers = 8 << 20
	}
	rules := make([]egress.Rule, 0, len(o.Rules))
	for _, r := range o.Rules {
		if len(r.Methods) == 0 {
			r.Methods = []string{http.MethodGet, http.MethodPost, http.MethodDelete}
		}
		rules = append(rules, r)
	}
	o.Rules = rules
	return o
}

// Client is a loop.Remotes. Each call has a session of its own: what a server
// does to one is nobody else's, and no host has to find another's again. It is
// safe for concurrent use.
type Client struct {
	options Options
	egress  *egress.Client
	ends    sync.WaitGroup // of sessions
}

var _ loop.Remotes = (*Client)(nil)

// New returns a Client. Close it.
func New(o Options) *Client {
	o = o.withDefaults()
	return &Client{options: o, egress: egress.New(egress.Options{
		Rules: o.Rules, RootCAs: o.RootCAs, Resolver: o.Resolver,
		MaxTime: max(o.CallTime, o.ListTime), MaxResponse: o.MaxAnswers,
		// Arguments are the model's: as long as its output may be.
		MaxRequest: 4 << 20,
	})}
}

// Close waits for the sessions that are ending. It is called when nothing uses
// the client any more.
func (c *Client) Close() {
	c.ends.Wait()
	c.egress.Close()
}

// refusal is why a server may not be asked: a sentence that the client is told.
type refusal string

func (r refusal) Error() string { return string(r) }

const (
	errNoServers  refusal = "This host lets requests name no MCP server: its operator must allow the address under mcp.http of its configuration."
	errNotAllowed refusal = "The operator of this host does not allow this MCP server: its address must be under mcp.http of the configuration."
	errPlainHTTP  refusal = "Credentials are sent to an MCP server over https only."
	errNoValue    refusal = "The authorization for an MCP server is no header value."
	errTwice      refusal = "The authorization for an MCP server is given twice."
)

// Allowed says why the server at an address may not be asked, in a sentence that
// the client may be told; nil: it may. What the host's name leads to is looked at
// when it is dialled.
func (c *Client) Allowed(url string) error {
	if len(c.options.Rules) == 0 {
		return errNoServers
	}
	if ok, _ := c.egress.Allows(http.MethodPost, url); !ok {
		return errNotAllowed
	}
	return nil
}

// The bounds of a client's credentials.
const (
	maxHeaders     = 32
	maxHeaderBytes = 16 << 10
)

// Check says what is wrong with the credentials for the server at an address.
// The text is a sentence that the client may be told: no value is in it.
func (c *Client) Check(url string, with response.Credentials) error {
	if len(with.Headers) == 0 && with.Authorization == "" {
		return nil
	}
	if _, private := c.egress.Allows(http.MethodPost, url); !private && !strings.HasPrefix(strings.ToLower(url), "https:") {
		return errPlainHTTP
	}
	if !egress.Settable("authorization", with.Authorization) {
		return errNoValue
	}
	size := len(with.Authorization)
	for name, value := range with.Headers {
		size += len(name) + len(value)
		switch {
		case reserved(name):
			return refusal(fmt.Sprintf("The header %.64q is not one that a client may set for an MCP server.", name))
		case !egress.Settable(name, value):
			return refusal(fmt.Sprintf("The header %.64q for an MCP server is not one that can be sent.", name))
		case with.Authorization != "" && strings.EqualFold(name, "authorization"):
			return errTwice
		}
	}
	if len(with.Headers) > maxHeaders || size > maxHeaderBytes {
		return refusal(fmt.Sprintf("The headers for an MCP server are more than %d, or than %d bytes.", maxHeaders, maxHeaderBytes))
	}
	return nil
}

// reserved reports whether a header is the protocol's or this host's to set, or
// a cookie. Some servers take _ for -.
func reserved(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch name {
	case "accept", "content-type", "last-event-id", "user-agent", "cookie", "cookie2", "origin", "content-encoding", "accept-encoding":
		return true
	}
	return strings.HasPrefix(name, "mcp-") || strings.HasPrefix(name, "x-casemate-")
}

// remote is the error of a server that did not answer as it should.
func remote(code, message string) error { return &loop.RemoteError{Code: code, Message: message} }

// stopped returns the end of the caller's own context, nil while it lasts.
func stopped(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mcp: %w", err)
	}
	return nil
}
