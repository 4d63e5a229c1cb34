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
	"sync/atomic"
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
	// ReadOnly opens an existing file beside its server: nothing is migrated,
	// locked, created or written.
	ReadOnly bool
}

// driver holds the one connection that writes. turn is taken for each
// transaction on it, and guards writer and statements.
type driver struct {
	file       string
	o          Options
	lock       *serverLock
	turn       chan struct{}
	writers    *sql.DB
	writer     *sql.Conn
	statements map[string]*sql.Stmt
	readers    *sql.DB
	// checkpointer is a connection that waits for nobody for long.
	checkpointer *sql.DB
	quiet        bool // there was no log, so no server, when it was opened to read
	watchers     watchers
	healed       atomic.Int64 // the last lane that a sweep compared with its requests
	// looked is, by model, where a claim stopped to look for what escalates; turn
	// guards it.
	looked map[string]position
}

// Open opens or creates the database at path and migrates it. It is the only
// server on the file until Close: the error wraps store.ErrInUse when there is
// one already, and store.ErrOutdated when a newer binary migrated the file.
func Open(ctx context.Context, path string, o Options) (store.Driver, error) {
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	d := &driver{o: o, turn: make(chan struct{}, 1), statements: make(map[string]*sql.Stmt), looked: make(map[string]position)}
	if err := d.open(ctx, path); err != nil {
		d.Close()
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	return d, nil
}

func (d *driver) open(ctx context.Context, path string) (err error) {
	if d.file, err = resolve(path); err != nil {
		return err
	}
	if d.o.ReadOnly {
		return d.openReadOnly(ctx)
	}
	if d.lock, err = lockServer(d.file); err != nil {
		return err
	}
	if err := d.openWriter(ctx); err != nil {
		return err
	}
	if err := d.migrate(ctx); err != nil {
		return err
	}
	if err := d.openReaders(ctx, ""); err != nil {
		return err
	}
	return d.openCheckpointer()
}

func (d *driver) openWriter(ctx context.Context) (err error) {
	d.writers, err = sql.Open("sqlite", dsn(d.file, d.o, "",
		"auto_vacuum(incremental)", // of a new file only
		"journal_mode(wal)",
		"synchronous(full)",
		fmt.Sprintf("journal_size_limit(%d)", keepLog),
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
	))
	if err != nil {
		return err
	}
	d.writers.SetMaxOpenConns(1)
	d.writers.SetMaxIdleConns(0)
	if err := d.forgetStatistics(ctx); err != nil {
		return err
	}
	d.writer, err = d.writers.Conn(ctx)
	return err
}

// forgetStatistics drops what somebody had SQLite count of tables: once there is
// more in them than then, it makes for plans that read all of it. Statements are
// written for the plans without. A connection knows for life what it read when
// it was opened, so the one that drops them is not kept.
func (d *driver) forgetStatistics(ctx context.Context) error {
	for _, table := range []string{"sqlite_stat1", "sqlite_stat4"} {
		if _, err := d.writers.ExecContext(ctx, "drop table if exists "+table); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) openReaders(ctx context.Context, mode string) (err error) {
	if d.readers, err = sql.Open("sqlite", dsn(d.file, d.o, mode, "query_only(1)")); err != nil {
		return err
	}
	d.readers.SetMaxOpenConns(d.o.Readers)
	d.readers.SetMaxIdleConns(d.o.Readers)
	return d.readers.PingContext(ctx)
}

// dsn escapes the path, so that it may hold "?" and "#". mode is how SQLite
// opens the file; "": to write to it.
func dsn(file string, o Options, mode string, pragmas ...string) string {
	q := url.Values{"_pragma": {fmt.Sprintf("busy_timeout(%d)", o.BusyTimeout.Milliseconds())}}
	q["_pragma"] = append(q["_pragma"], pragmas...)
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file), RawQuery: q.Encode() + mode}
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
	if d.checkpointer != nil {
		errs = append(errs, d.checkpointer.Close())
	}
	if d.readers != nil {
		errs = append(errs, d.readers.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	if d.writers != nil {
		errs = append(errs, d.writers.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.release())
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
