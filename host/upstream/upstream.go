// Package upstream calls model endpoints that speak Chat Completions or
// Responses over HTTP, streaming or not, and knows how well each of them does.
// It makes one call per Do: it picks no target, retries nothing, logs nothing
// and reads no more of an answer than where it ends and whether it is an error.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// Kind is the API that an endpoint speaks.
type Kind string

// The kinds. An endpoint of either may serve /embeddings and /completions too.
const (
	Chat      Kind = "chat"      // POST /chat/completions
	Responses Kind = "responses" // POST /responses
)

// ResponsesPath is the path of a call whose answer is one of Responses.
const ResponsesPath = "/responses"

// Upstream is one endpoint.
type Upstream struct {
	Name    string // no slash
	Kind    Kind   // "": Chat
	BaseURL string // "https://api.example.com/v1"; a call's path is appended
	APIKey  string // sent as a bearer token; "": none
}

// Target is one model of one upstream.
type Target struct {
	Upstream string  // an Upstream.Name
	Model    string  // the upstream's name of the model
	Weight   float64 // share of the calls; 0: 1
	Limit    int     // calls in flight that the target should have at most; 0: none
}

// Model is an alias that requests ask for.
type Model struct {
	Name    string
	Targets []Target
}

// Config says which endpoints there are. Zero values mean the defaults.
type Config struct {
	Upstreams []Upstream
	Models    []Model
	// FirstEvent bounds the time from the start of a call whose body has
	// "stream": true to its first data event, or to the first byte of an answer
	// that is no event stream; 0: 60 s.
	FirstEvent time.Duration
	Idle       time.Duration // between two pieces of a body; 0: 60 s
	Total      time.Duration // of a whole call; 0: 10 min
	// MaxReplyBytes bounds a body, decompressed, streamed or not; 0: 16 MiB.
	MaxReplyBytes int64
	MaxEventBytes int          // of one event; 0: 1 MiB. Those of Responses may be as long as a body
	HTTP          *http.Client // nil: an own one with a pool; redirects are refused either way
	Slots         Slots        // nil: any number of calls
}

// Slots bounds the calls that run at once, per target.
type Slots interface {
	// Acquire returns when one call of target may begin; release ends it. It
	// waits within ctx. An error refuses the call; one with a method
	// RetryAfter() time.Duration says when it may be worth asking again.
	Acquire(ctx context.Context, target string, realtime bool) (release func(), err error)
}

func (c Config) withDefaults() Config {
	if c.FirstEvent == 0 {
		c.FirstEvent = time.Minute
	}
	if c.Idle == 0 {
		c.Idle = time.Minute
	}
	if c.Total == 0 {
		c.Total = 10 * time.Minute
	}
	if c.MaxReplyBytes == 0 {
		c.MaxReplyBytes = 16 << 20
	}
	if c.MaxEventBytes == 0 {
		c.MaxEventBytes = 1 << 20
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Transport: pooled()}
	}
	own := *c.HTTP // the caller's stays as it is
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.HTTP = &own
	return c
}

// pooled returns a transport for many calls to few hosts. Its waits are bounded
// by the limits of the calls.
func pooled() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    128,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// endpoint is a target as Do needs it.
type endpoint struct {
	id     string // "upstream/model"
	kind   Kind
	base   string // without a slash at its end
	key    string
	model  string
	health health
}

// choice is a target of an alias.
type choice struct {
	target   Target
	endpoint *endpoint
}

// Client calls the configured targets. It is safe for concurrent use.
type Client struct {
	limits    Config
	models    map[string][]choice
	endpoints map[string]*endpoint // by id; one in several aliases has one health
}

// New returns a Client, or an error that names what is wrong in c.
func New(c Config) (*Client, error) {
	if c.FirstEvent < 0 || c.Idle < 0 || c.Total < 0 || c.MaxReplyBytes < 0 || c.MaxEventBytes < 0 {
		return nil, errors.New("upstream: a limit is negative")
	}
	ups := make(map[string]Upstream, len(c.Upstreams))
	for _, u := range c.Upstreams {
		if err := u.check(); err != nil {
			return nil, fmt.Errorf("upstream: upstream %q: %w", u.Name, err)
		}
		if _, ok := ups[u.Name]; ok {
			return nil, fmt.Errorf("upstream: upstream %q: listed twice", u.Name)
		}
		ups[u.Name] = u
	}
	cl := &Client{limits: c.withDefaults(), models: map[string][]choice{}, endpoints: map[string]*endpoint{}}
	for _, m := range c.Models {
		if _, ok := cl.models[m.Name]; ok || m.Name == "" {
			return nil, fmt.Errorf("upstream: model %q: no name, or listed twice", m.Name)
		}
		if len(m.Targets) == 0 {
			return nil, fmt.Errorf("upstream: model %q: no targets", m.Name)
		}
		for _, t := range m.Targets {
			if err := cl.add(m.Name, t, ups); err != nil {
				return nil, fmt.Errorf("upstream: model %q: target %s/%s: %w", m.Name, t.Upstream, t.Model, err)
			}
		}
	}
	return cl, nil
}

// add makes t a target of alias.
func (c *Client) add(alias string, t Target, ups map[string]Upstream) error {
	u, ok := ups[t.Upstream]
	switch {
	case !ok:
		return errors.New("no such upstream")
	case t.Model == "":
		return errors.New("no model")
	case !(t.Weight >= 0) || math.IsInf(t.Weight, 0): // also refuses NaN
		return errors.New("weight is not a number from 0")
	case t.Limit < 0:
		return errors.New("limit is negative")
	}
	if t.Weight == 0 {
		t.Weight = 1
	}
	id := t.Upstream + "/" + t.Model
	e := c.endpoints[id]
	if e == nil {
		e = &endpoint{id: id, kind: cmp.Or(u.Kind, Chat), base: strings.TrimRight(u.BaseURL, "/"), key: u.APIKey, model: t.Model}
		c.endpoints[id] = e
	}
	if slices.ContainsFunc(c.models[alias], func(o choice) bool { return o.endpoint == e }) {
		return errors.New("listed twice")
	}
	c.models[alias] = append(c.models[alias], choice{target: t, endpoint: e})
	return nil
}

// check returns what is wrong with u. The error never holds URL or key.
func (u Upstream) check() error {
	if u.Name == "" || strings.ContainsAny(u.Name, "/\x00") {
		return errors.New("name is empty or holds a slash")
	}
	b, err := url.Parse(u.BaseURL)
	switch {
	case u.Kind != "" && u.Kind != Chat && u.Kind != Responses:
		return errors.New("kind is neither chat nor responses")
	case err != nil || b.Host == "" || b.Scheme != "http" && b.Scheme != "https":
		return errors.New("base URL is not an http or https URL")
	case b.User != nil || b.RawQuery != "" || b.ForceQuery || b.Fragment != "":
		return errors.New("base URL holds credentials, a query or a fragment")
	case !headerSafe(u.APIKey):
		return errors.New("API key holds a character that no header may hold")
	}
	return nil
}

// headerSafe reports whether v may be a header's value.
func headerSafe(v string) bool {
	return !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// Models returns the aliases, sorted.
func (c *Client) Models() []string {
	names := make([]string, 0, len(c.models))
	for name := range c.models {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Has reports whether model is an alias.
func (c *Client) Has(model string) bool { return len(c.models[model]) > 0 }

// Kind returns the kind of a target's upstream.
func (c *Client) Kind(target string) Kind {
	if e := c.endpoints[target]; e != nil {
		return e.kind
	}
	return Chat
}

// Candidates returns the targets of an alias, in the configured order, with
// their health of this moment; nil for what is no alias.
func (c *Client) Candidates(model string) []abi.Candidate {
	now := time.Now()
	var all []abi.Candidate
	for _, o := range c.models[model] {
		v := o.endpoint.health.view(now)
		all = append(all, abi.Candidate{
			Target: o.endpoint.id, Upstream: o.target.Upstream, Model: o.target.Model,
			Weight: o.target.Weight, Limit: o.target.Limit,
			Healthy: v.healthy, InFlight: v.inFlight, LatencyMS: v.latency, ErrorRate: v.errorRate,
			CooldownMS: (v.cooldown + time.Millisecond - 1).Milliseconds(), // rounded up: 0 means none
		})
	}
	return all
}
