package testdb

import "testing"

// Server is a PostgreSQL server of one test's own, which it may take away and
// bring back with what was committed. Its methods are not for concurrent use.
type Server struct {
	tb       testing.TB
	instance instance
	down     bool
}

// NewServer starts a server, which is removed when the test ends. Without
// PostgreSQL the test fails.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, instance: instance{safety: safeFromKill}}
	tb.Cleanup(s.instance.stop)
	if err := s.instance.start(); err != nil {
		tb.Fatalf("testdb: no PostgreSQL: %v\ninstall it (Debian: apt-get install postgresql)", err)
	}
	return s
}

// URL returns that of an empty database, the same as long as the server lives.
func (s *Server) URL() string { return s.instance.url() }

// Socket returns the path of the Unix socket that the server listens on, for a
// test that puts itself in between.
func (s *Server) Socket() string { return s.instance.dir + "/.s.PGSQL.5432" }

// Stop stops the server in order: it ends its connections and transactions.
func (s *Server) Stop() { s.end("INT") }

// Kill stops the server as a crash does; the next start recovers.
func (s *Server) Kill() { s.end("QUIT") }

func (s *Server) end(signal string) {
	s.tb.Helper()
	if s.down {
		return
	}
	if err := s.instance.order(signal); err != nil {
		s.tb.Fatalf("testdb: stop the server: %v", err)
	}
	s.down = true
}

// Start starts a server that was stopped and returns when it answers.
func (s *Server) Start() {
	s.tb.Helper()
	if !s.down {
		return
	}
	err := s.instance.order("START")
	if err == nil {
		err = s.instance.wait(s.URL())
	}
	if err != nil {
		s.tb.Fatalf("testdb: start the server: %v", err)
	}
	s.down = false
}
