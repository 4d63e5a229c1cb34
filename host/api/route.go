package api

import (
	"net/http"
	"slices"
	"strings"
)

// handler answers one request. An error that it returns before anything was
// written becomes the answer.
type handler func(x *exchange) error

// route is one path and what each method does there.
type route struct {
	path    string // segments; {id} and {item} stand for one each, {id...} for the rest
	public  bool   // needs no key
	methods map[string]handler
}

// The paths that requests are stored under.
const (
	pathResponses   = "/v1/responses"
	pathCompletions = "/v1/chat/completions"
	pathTexts       = "/v1/completions"
	pathEmbeddings  = "/v1/embeddings"
	pathMCP         = "/mcp"
)

// pathConversations is where conversations are.
const pathConversations = "/v1/conversations"

// Paths returns the paths that requests are stored under.
func Paths() []string {
	return []string{pathResponses, pathCompletions, pathTexts, pathEmbeddings, pathMCP}
}

// table is every route there is.
func (a *API) table() []route {
	return []route{
		{path: pathResponses, methods: map[string]handler{"POST": a.create, "GET": a.socket}},
		{path: pathResponses + "/input_tokens", methods: map[string]handler{"POST": a.countInput}},
		{path: pathResponses + "/compact", methods: map[string]handler{"POST": a.compact}},
		{path: pathResponses + "/{id}", methods: map[string]handler{"GET": a.retrieve, "DELETE": a.remove}},
		{path: pathResponses + "/{id}/cancel", methods: map[string]handler{"POST": a.cancel}},
		{path: pathResponses + "/{id}/input_items", methods: map[string]handler{"GET": a.inputItems}},
		{path: pathConversations, methods: map[string]handler{"POST": a.createConversation}},
		{path: pathConversations + "/{id}", methods: map[string]handler{"GET": a.conversation, "POST": a.setMetadata, "DELETE": a.removeConversation}},
		{path: pathConversations + "/{id}/items", methods: map[string]handler{"GET": a.items, "POST": a.addItems}},
		{path: pathConversations + "/{id}/items/{item}", methods: map[string]handler{"GET": a.item, "DELETE": a.removeItem}},
		{path: pathCompletions, methods: map[string]handler{"POST": a.completion}},
		{path: pathTexts, methods: map[string]handler{"POST": a.textCompletion}},
		{path: pathEmbeddings, methods: map[string]handler{"POST": a.embedding}},
		{path: pathMCP, methods: map[string]handler{"POST": a.mcp}},
		{path: "/v1/models", methods: map[string]handler{"GET": a.models}},
		{path: "/v1/models/{id...}", methods: map[string]handler{"GET": a.model}},
		{path: "/healthz", public: true, methods: map[string]handler{"GET": a.healthz, "HEAD": a.healthz}},
		{path: "/readyz", public: true, methods: map[string]handler{"GET": a.readyz, "HEAD": a.readyz}},
		{path: "/metrics", public: true, methods: map[string]handler{"GET": a.metrics}},
	}
}

// captured is what stands for the variables of a route.
type captured struct{ id, item string }

// match reports whether path is the route's, and what stands for its variables.
func (r route) match(path string) (c captured, ok bool) {
	want, more := r.path, true
	for more {
		var w, g string
		var left bool
		if w, want, more = strings.Cut(want, "/"); w == "{id...}" {
			c.id = path
			return c, c.id != ""
		}
		g, path, left = strings.Cut(path, "/")
		switch {
		case w == "{id}" && g != "":
			c.id = g
		case w == "{item}" && g != "":
			c.item = g
		case w != g:
			return c, false
		}
		if left != more {
			return c, false
		}
	}
	return c, true
}

// find returns the route and handler of a request, or the error to answer.
// Where two routes match, the first is it.
func (a *API) find(r *http.Request) (route, handler, captured, error) {
	for _, rt := range a.routes {
		c, ok := rt.match(r.URL.Path)
		if !ok {
			continue
		}
		if h := rt.methods[r.Method]; h != nil {
			return rt, h, c, nil
		}
		var allow []string
		for m := range rt.methods {
			allow = append(allow, m)
		}
		slices.Sort(allow)
		return rt, nil, c, notAllowed(allow...)
	}
	return route{path: "unknown"}, nil, captured{}, &Error{
		Status: http.StatusNotFound, Code: "unknown_url", Message: "There is nothing at this path.",
	}
}

// notAllowed answers a method that a path does not take.
func notAllowed(allow ...string) error {
	return &Error{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Allow: strings.Join(allow, ", "),
		Message: "This path does not take that method.",
	}
}

// bearer returns the key of an Authorization header.
func bearer(h http.Header) (string, bool) {
	scheme, key, ok := strings.Cut(h.Get("Authorization"), " ")
	key = strings.TrimSpace(key)
	return key, ok && strings.EqualFold(scheme, "Bearer") && key != ""
}

// authenticate finds the tenant of a request.
func (a *API) authenticate(x *exchange) error {
	if t, ok := a.Tenants.Open(); ok {
		// A page of elsewhere can have its browser send this, if not read the
		// answer. With a key it cannot: it would have to know it.
		if err := x.checkOrigin(); err != nil {
			return err
		}
		x.tenant = t
		return nil
	}
	key, ok := bearer(x.r.Header)
	if !ok {
		return &Error{
			Status: http.StatusUnauthorized, Code: "invalid_api_key",
			Message: "An API key is needed: send it as 'Authorization: Bearer KEY'.",
		}
	}
	if x.tenant, ok = a.Tenants.ByKey(key); !ok {
		return &Error{Status: http.StatusUnauthorized, Code: "invalid_api_key", Message: "This API key is not known."}
	}
	return nil
}
