package egress

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/casemate/casemate/plugins/capability"
)

// Transport is a Client as an http.RoundTripper, for libraries that send
// requests themselves. It follows redirects, each of which is checked like the
// request, and returns the first response that is none. Its errors are those of
// Client.Do.
type Transport struct {
	Client *Client
	// Own reports of a header field, by its name in lower case, whether only
	// the origin that the request is for may get it: over https, or over http
	// where a rule grants private addresses. What a redirect to another origin
	// leads to goes without it. nil: no field, beside those that never follow.
	Own func(field string) bool
}

var _ http.RoundTripper = Transport{}

// RoundTrip implements http.RoundTripper. The body of the request is held in
// memory, within Options.MaxRequest.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := t.body(r)
	if err != nil {
		return nil, err
	}
	asked := &capability.HTTPRequest{Method: r.Method, URL: r.URL.String(), Body: body}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			asked.Header = append(asked.Header, capability.HTTPHeader{Name: name, Value: v})
		}
	}
	h, err := t.Client.first(asked)
	if err != nil {
		return nil, err
	}
	for i := range h.fields {
		h.fields[i].own = t.Own != nil && t.Own(h.fields[i].name)
	}
	resp, err := t.Client.start(r.Context(), h, t.Client.options.MaxTime, t.Client.options.MaxResponse)
	if err != nil {
		return nil, err
	}
	resp.Request = r
	return resp, nil
}

// body reads and closes the body of a request.
func (t Transport) body(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	data, err := io.ReadAll(io.LimitReader(r.Body, t.Client.options.MaxRequest+1)) // one more is too many for first
	if err != nil {
		return nil, fmt.Errorf("egress: body of the request: %w", err)
	}
	return data, nil
}

// Allows reports whether some rule allows a request, and whether one that grants
// private addresses does. Where its host leads to is known when it is dialled.
func (c *Client) Allows(method, url string) (allowed, private bool) {
	to, ok := parseTarget(url)
	if !ok {
		return false, false
	}
	return c.find(method, to)
}

// Settable reports whether a request may carry a header field with this value.
func Settable(name, value string) bool {
	name = strings.ToLower(name)
	return validFieldName(name) && validFieldValue(value) && !ownField(name) && !strings.Contains(value, secretOpen)
}
