// Package egress sends the HTTP requests of plugins as an operator's rules
// allow: it checks each URL and each address that is dialled, follows
// redirects by hand, puts secrets into headers and bounds time and size. It
// knows no guest and keeps no cookies.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/casemate/casemate/plugins/capability"
)

// Options say what a Client may do. The zero value allows nothing.
type Options struct {
	Rules   []Rule
	Secrets []Secret
	// MaxTime bounds an exchange with its redirects and its body; 0: 30 s.
	MaxTime time.Duration
	// MaxRequest and MaxResponse bound bodies, in bytes; 0: 1 MiB and 64 MiB.
	MaxRequest, MaxResponse int64
	// RootCAs verify servers; nil: those of the system.
	RootCAs *x509.CertPool
	// Resolver looks names up; nil: net.DefaultResolver.
	Resolver *net.Resolver
}

// The bounds of an exchange that no option changes.
const (
	maxRedirects   = 5
	maxURL         = 8 << 10 // bytes
	maxFields      = 64      // header fields of a request
	maxFieldBytes  = 32 << 10
	maxHeader      = 64 << 10  // bytes of a response's header
	maxUnread      = 256 << 10 // bytes of a body that came and were not read, in HTTP/2
	dialTimeout    = 10 * time.Second
	idleTimeout    = time.Minute
	maxConns       = 64 // to one host
	maxIdle        = 32
	maxIdlePerHost = 8
)

// Validate says what is wrong with the rules and secrets. New ignores those
// that are wrong, so that a mistake allows nothing.
func (o Options) Validate() error {
	var errs []error
	for _, r := range o.Rules {
		errs = append(errs, r.check())
	}
	for _, s := range o.Secrets {
		errs = append(errs, s.check())
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.MaxTime <= 0 {
		o.MaxTime = 30 * time.Second
	}
	if o.MaxRequest <= 0 {
		o.MaxRequest = 1 << 20
	}
	if o.MaxResponse <= 0 {
		o.MaxResponse = 64 << 20
	}
	return o
}

// Client is a capability.HTTP. It is safe for concurrent use. Its connections
// are its own.
type Client struct {
	options Options
	rules   []Rule
	secrets []Secret
	// A connection to a private address must not serve a request whose rule
	// grants none, so there are two pools.
	public, private *http.Transport
	conns           conns
}

var _ capability.HTTP = (*Client)(nil)

// New returns a client. Close it.
func New(o Options) *Client {
	c := &Client{options: o.withDefaults()}
	for _, r := range o.Rules {
		if r.check() == nil {
			c.rules = append(c.rules, r.normal())
		}
	}
	for _, s := range o.Secrets {
		if s.check() == nil {
			c.secrets = append(c.secrets, s.normal())
		}
	}
	c.public = c.transport(false)
	c.private = c.transport(true)
	return c
}

// Close lets no exchange begin, closes connections that are idle, and all
// others once the exchanges under way have ended. It waits for none.
func (c *Client) Close() {
	c.conns.close()
	c.public.CloseIdleConnections()
	c.private.CloseIdleConnections()
}

// transport returns a pool of connections. It uses no proxy, and leaves bodies
// compressed as they come: what is counted is what is kept.
func (c *Client) transport(private bool) *http.Transport {
	d := dialer{resolver: c.options.Resolver, private: private, conns: &c.conns}
	return &http.Transport{
		DialContext:            d.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.options.RootCAs},
		TLSHandshakeTimeout:    dialTimeout,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        maxConns,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     maxUnread,
			MaxReceiveBufferPerConnection: maxConns * maxUnread,
		},
	}
}
