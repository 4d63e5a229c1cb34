// Package demo is a deterministic model server that speaks Chat Completions and
// Responses over loopback HTTP, for trying things out and, with a script, for
// tests. It is no language model, listens on loopback only, checks no key and
// keeps no response.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Request is one request that the server got.
type Request struct {
	Method string
	Path   string // "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
	Header http.Header
	Body   []byte
}

// maxBody is the longest request body that is read.
const maxBody = 64 << 20

// Server is a running model server.
type Server struct {
	script Script
	keep   bool // remember requests
	url    string
	http   *http.Server
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	scripting sync.Mutex // one call of script at a time

	mu     sync.Mutex
	closed bool
	count  int
	seen   []Request
}

// Start listens on a free loopback port. With a nil script the server answers
// as Model does and remembers no request; Start(Model) remembers them.
func Start(s Script) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: listen: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	srv := &Server{script: s, keep: s != nil, url: "http://" + l.Addr().String() + "/v1", stop: stop}
	if s == nil {
		srv.script = Model
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", serveModels)
	mux.HandleFunc("POST /v1/chat/completions", srv.handle(serveChat))
	mux.HandleFunc("POST "+responsesPath, srv.handle(serveResponses))
	mux.HandleFunc("POST /v1/embeddings", srv.handle(serveEmbeddings))
	srv.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	srv.tasks.Go(func() { _ = srv.http.Serve(l) }) // ends with Close
	return srv, nil
}

// URL returns the base URL, ending in /v1.
func (s *Server) URL() string { return s.url }

// Close drops every connection and returns when all handlers have.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	_ = s.http.Close() // the listener is gone either way
	s.tasks.Wait()
}

// Requests returns the requests seen so far, in order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// handle reads the request, asks the script and lets answer write the Turn,
// unless the Turn says that another body is to be sent.
func (s *Server) handle(answer func(*writer, Request, Turn)) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		if !s.enter() {
			panic(http.ErrAbortHandler)
		}
		defer s.tasks.Done()
		body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, maxBody))
		if err != nil {
			status := http.StatusBadRequest
			if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			writeError(w, status, "the body cannot be read")
			return
		}
		r := Request{Method: hr.Method, Path: hr.URL.Path, Header: hr.Header.Clone(), Body: body}
		turn := s.next(r)
		whole := false
		if turn.Ended != nil {
			defer func() { turn.Ended(whole) }()
		}
		out := newWriter(hr.Context(), w, turn)
		out.begin()
		switch {
		case turn.Raw != nil:
			out.raw(turn.Raw)
		case turn.ErrorBody != "" || turn.Status >= 300:
			out.plain([]byte(turn.ErrorBody))
		default:
			answer(out, r, turn)
		}
		whole = true
	}
}

// enter counts a handler in; false once the server closes.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tasks.Add(1)
	return true
}

// next numbers a request and asks the script for its Turn.
func (s *Server) next(r Request) Turn {
	s.scripting.Lock()
	defer s.scripting.Unlock()
	s.mu.Lock()
	n := s.count
	s.count++
	if s.keep {
		kept := r
		kept.Body = bytes.Clone(r.Body)
		s.seen = append(s.seen, kept)
	}
	s.mu.Unlock()
	return s.script(n, r)
}
