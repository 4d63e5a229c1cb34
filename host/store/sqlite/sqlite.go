// Package sqlite is the store.Driver on one SQLite file, for a host that shares
// its requests with no other machine: one connection writes, a few read. It
// makes no choice about a request's next state and starts no goroutine.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/casemate/casemate/host/store"
)

// Options tunes a driver. The zero value is usable.
type Options struct {
	// BusyTimeout is how long a write waits for another process that writes to
	// the same file; 0: 5 s.
	BusyTimeout time.Duration
	Readers     int // connections that read; 0: 4
}

// checkpointPages is how far the log grows before a commit has to copy it back
// itself. Sweep does so long before, off the commit path.
const checkpointPages = 16384

// driver holds the one connection that writes. turn is taken for each
// transaction on it, and guards writer and statements.
type driver struct {
	turn       chan struct{}
	writers    *sql.DB
	writer     *sql.Conn
	statements map[string]*sql.Stmt
	readers    *sql.DB
}

// Open opens or creates the database at path and migrates it. The error wraps
// store.ErrOutdated when a newer binary did so before.
func Open(ctx context.Context, path string, o Options) (store.Driver, error) {
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	d := &driver{turn: make(chan struct{}, 1), statements: make(map[string]*sql.Stmt)}
	if err := d.open(ctx, file, o); err != nil {
		d.Close()
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	return d, nil
}

func (d *driver) open(ctx context.Context, file string, o Options) (err error) {
	if d.writers, err = sql.Open("sqlite", dsn(file, o, "journal_mode(wal)", "synchronous(full)", fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages))); err != nil {
		return err
	}
	d.writers.SetMaxOpenConns(1)
	if d.writer, err = connect(ctx, d.writers, o.BusyTimeout); err != nil {
		return err
	}
	if err := d.migrate(ctx); err != nil {
		return err
	}
	if d.readers, err = sql.Open("sqlite", dsn(file, o, "query_only(1)")); err != nil {
		return err
	}
	d.readers.SetMaxOpenConns(o.Readers)
	d.readers.SetMaxIdleConns(o.Readers)
	return d.readers.PingContext(ctx)
}

// connect opens the connection that writes. The first one to a file switches it
// to WAL; SQLite does not wait for others that do so at the same time, whatever
// its busy timeout, so this does.
func connect(ctx context.Context, db *sql.DB, wait time.Duration) (*sql.Conn, error) {
	until := time.Now().Add(wait)
	for {
		conn, err := db.Conn(ctx)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(until) {
			return conn, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dsn escapes the path, so that it may hold "?" and "#".
func dsn(file string, o Options, pragmas ...string) string {
	q := url.Values{"_pragma": {fmt.Sprintf("busy_timeout(%d)", o.BusyTimeout.Milliseconds())}}
	q["_pragma"] = append(q["_pragma"], pragmas...)
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file), RawQuery: q.Encode()}
	return u.String()
}

// Close waits for the write in progress.
func (d *driver) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	var errs []error
	for _, s := range d.statements {
		errs = append(errs, s.Close())
	}
	clear(d.statements)
	if d.readers != nil {
		errs = append(errs, d.readers.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	if d.writers != nil {
		errs = append(errs, d.writers.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sqlite: close: %w", err)
	}
	return nil
}

// classify marks the errors after which the same call may succeed.
func classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}
