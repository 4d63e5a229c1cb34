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
	path    string // segments; {id} stands for one, {id...} for the rest
	public  bool   // needs no key
	methods map[string]handler
}

// The paths that requests are stored under.
const (
	pathResponses   = "/v1/responses"
	pathCompletions = "/v1/chat/completions"
	pathEmbeddings  = "/v1/embeddings"
)

// Paths returns the paths that requests are stored under.
func Paths() []string { return []string{pathResponses, pathCompletions, pathEmbeddings} }

// table is every route there is.
func (a *API) table() []route {
	return []route{
		{path: pathResponses, methods: map[string]handler{"POST": a.create}},
		{path: pathResponses + "/{id}", methods: map[string]handler{"GET": a.retrieve, "DELETE": a.remove}},
		{path: pathResponses + "/{id}/cancel", methods: map[string]handler{"POST": a.cancel}},
		{path: pathCompletions, methods: map[string]handler{"POST": a.completion}},
		{path: pathEmbeddings, methods: map[string]handler{"POST": a.embedding}},
		{path: "/v1/models", methods: map[string]handler{"GET": a.models}},
		{path: "/v1/models/{id...}", methods: map[string]handler{"GET": a.model}},
		{path: "/healthz", public: true, methods: map[string]handler{"GET": a.healthz, "HEAD": a.healthz}},
		{path: "/readyz", public: true, methods: map[string]handler{"GET": a.readyz, "HEAD": a.readyz}},
		{path: "/metrics", public: true, methods: map[string]handler{"GET": a.metrics}},
	}
}

// match reports whether path is the route's, and what stands for {id}.
func (r route) match(path string) (id string, ok bool) {
	want, got := strings.Split(r.path, "/"), strings.Split(path, "/")
	for i, w := range want {
		switch {
		case i >= len(got):
			return "", false
		case w == "{id...}":
			id = strings.Join(got[i:], "/")
			return id, id != ""
		case w == "{id}" && got[i] != "":
			id = got[i]
		case w != got[i]:
			return "", false
		}
	}
	return id, len(want) == len(got)
}

// find returns the route and handler of a request, or the error to answer.
func (a *API) find(r *http.Request) (route, handler, string, error) {
	for _, rt := range a.routes {
		id, ok := rt.match(r.URL.Path)
		if !ok {
			continue
		}
		if h := rt.methods[r.Method]; h != nil {
			return rt, h, id, nil
		}
		var allow []string
		for m := range rt.methods {
			allow = append(allow, m)
		}
		slices.Sort(allow)
		return rt, nil, "", &Error{
			Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Allow: strings.Join(allow, ", "),
			Message: "This path does not take that method.",
		}
	}
	return route{path: "unknown"}, nil, "", &Error{
		Status: http.StatusNotFound, Code: "unknown_url", Message: "There is nothing at this path.",
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
