// Package testdb gives each test a fresh database: a SQLite file, or a database
// on a PostgreSQL server that it finds or starts. It opens no store and is not
// for production code.
package testdb

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/lib/pq" // the driver that creates databases, so that the store's own is not needed to test it
)

// Variable names the environment variable with the URL of a server to use.
const Variable = "CASEMATE_TEST_POSTGRES"

// Each runs f once a database, with the store URL of a fresh one: "sqlite:PATH"
// and "postgres://…".
func Each(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// SQLite returns the path of a file that does not exist yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "casemate.db")
}

// Postgres returns the URL of a fresh, empty database, dropped when the test
// ends. Without a server the test fails: it never passes unseen.
func Postgres(t testing.TB) string {
	t.Helper()
	u, drop, err := create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// Fresh is Postgres for a program that is not a test; done drops the database
// and stops the server that was started for it.
func Fresh() (u string, done func() error, err error) {
	u, drop, err := create()
	if err != nil {
		running.stop()
		return "", nil, err
	}
	return u, func() error {
		defer running.stop()
		return drop()
	}, nil
}

// FreshDurable is Fresh on a server of its own that commits to disk, whatever
// Variable says: for measuring.
func FreshDurable() (u string, done func() error, err error) {
	s := &instance{safety: safeFromAll}
	if err := s.start(); err != nil {
		s.stop()
		return "", nil, fmt.Errorf("testdb: no PostgreSQL: %w\ninstall it (Debian: apt-get install postgresql)", err)
	}
	return s.url(), func() error { s.stop(); return nil }, nil
}

// create makes an empty database on the server.
func create() (u string, drop func() error, err error) {
	base, err := server()
	if err != nil {
		return "", nil, fmt.Errorf("testdb: no PostgreSQL: %w\nset %s to the URL of a server, or install PostgreSQL (Debian: apt-get install postgresql)", err, Variable)
	}
	parsed, err := url.Parse(base)
	if err != nil {
		return "", nil, fmt.Errorf("testdb: %s is not a URL: %w", Variable, err)
	}
	name := "casemate_test_" + rand.Text()
	parsed.Path = "/" + name
	if err := execute(base, `create database "`+name+`"`); err != nil {
		return "", nil, fmt.Errorf("testdb: create a database: %w", err)
	}
	return parsed.String(), func() error {
		if err := execute(base, `drop database if exists "`+name+`" with (force)`); err != nil {
			return fmt.Errorf("testdb: drop a database: %w", err)
		}
		return nil
	}, nil
}

// Main runs m, stops the server that its tests started and returns the exit
// code. A test binary without it leaves no server behind either: the server
// stops when its process has ended, however it ended.
func Main(m *testing.M) int {
	code := m.Run()
	pooling.stop()
	running.stop()
	return code
}

// running is the server of this process: starting one takes seconds, so all its
// tests share it.
var running = instance{safety: safeFromNothing}

// server returns the URL of a database to connect to for creating others.
var server = sync.OnceValues(func() (string, error) {
	if base := os.Getenv(Variable); base != "" {
		return base, nil
	}
	if err := running.start(); err != nil {
		running.stop()
		return "", err
	}
	return running.url(), nil
})

func execute(base, statement string) error {
	db, err := sql.Open("postgres", base)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
