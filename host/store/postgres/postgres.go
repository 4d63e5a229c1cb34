// Package postgres is the store.Driver on PostgreSQL 14 or later, shared by any
// number of hosts. It keeps no state in a session, so PgBouncer may stand
// between in transaction mode: before its version 1.21 with
// default_query_exec_mode=exec in the URL. It makes no choice about a request's
// next state and starts no goroutine but those of its connection pools.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Options tunes a driver. The zero value is usable.
type Options struct {
	Conns   int           // at most, besides the one for heartbeats; 0: what the URL says, else 8
	Timeout time.Duration // of one call; 0: 30 s
	// ReadOnly changes nothing, not even the schema: the database refuses every
	// write, or the driver does where a pooler is in between. A schema of another
	// version than this binary's is refused.
	ReadOnly bool
	// Listen is the URL of a connection to listen for hints on, which must not go
	// through a pooler; "": the same URL; "off": no listening.
	Listen string
}

const (
	defaultConns   = 8
	connectTimeout = 5 * time.Second
	connLifetime   = 30 * time.Minute
	connJitter     = 5 * time.Minute // so that they do not all end at once
)

// Keys of advisory locks, all of them held to the end of a transaction at most.
const (
	lockMigrate   = 0x6361_7365_0001
	lockCaps      = 0x6361_7365_0002 // shared by all that count running requests, exclusive to set a cap
	lockSweeping  = 0x6361_7365_0003
	lockRetaining = 0x6361_7365_0004
)

type driver struct {
	marks   marks
	pool    *pgxpool.Pool
	beats   *pgxpool.Pool // one connection, so that heartbeats never wait for others
	timeout time.Duration

	hints    *hints
	listenOn *pgx.ConnConfig // nil: not at all
	worker   atomic.Int64    // that beat last
	healed   atomic.Int64    // the lane that the last sweep healed last; 0: all of them

	mu       sync.Mutex
	lanes    map[laneKey]int64 // ids never change and rows are never removed
	days     days
	listened bool  // Watch has tried to
	hearing  error // why it could not

	kept retention
}

type laneKey struct{ tenant, model string }

// Open connects to the database at url and migrates it. The error wraps
// store.ErrOutdated when a newer binary did so before.
func Open(ctx context.Context, url string, o Options) (store.Driver, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	d, err := connectTo(ctx, url, o, o.ReadOnly)
	if err != nil && o.ReadOnly && strings.Contains(err.Error(), "unsupported startup parameter") {
		if d, err = connectTo(ctx, url, o, false); err == nil {
			return looking{d}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// connectTo opens a driver; sealed: the server refuses every write of its
// sessions.
func connectTo(ctx context.Context, url string, o Options, sealed bool) (*driver, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: url: %w", err)
	}
	set(config, url, o)
	if sealed {
		config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	}
	d := &driver{timeout: o.Timeout, hints: newHints(), lanes: make(map[laneKey]int64)}
	if d.listenOn, err = listenConfig(config, o.Listen); err != nil {
		return nil, err
	}
	if d.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("postgres: open: %w", err)
	}
	one := config.Copy()
	one.MinConns, one.MinIdleConns, one.MaxConns = 0, 0, 1
	if d.beats, err = pgxpool.NewWithConfig(ctx, one); err != nil {
		d.Close()
		return nil, fmt.Errorf("postgres: open: %w", err)
	}
	if err := d.prepare(ctx, o); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *driver) prepare(ctx context.Context, o Options) error {
	if o.ReadOnly {
		return d.call(ctx, "open to read only", d.check)
	}
	if err := d.limited(ctx, migrateWithin, "migrate", d.migrate); err != nil {
		return err
	}
	return d.call(ctx, "make partitions", d.makeAhead)
}

func set(c *pgxpool.Config, url string, o Options) {
	switch {
	case o.Conns > 0:
		c.MaxConns = int32(o.Conns)
	case !strings.Contains(url, "pool_max_conns="):
		c.MaxConns = defaultConns
	}
	c.MaxConnLifetime, c.MaxConnLifetimeJitter = connLifetime, connJitter
	// A pooler may give a session to the pool that somebody left listening.
	c.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	name(c.ConnConfig)
}

// name sets what the server shows of a connection, and how long to try for one.
func name(c *pgx.ConnConfig) {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "casemate"
	}
}

// Close waits for the calls in progress.
func (d *driver) Close() error {
	if d.beats != nil {
		d.beats.Close()
	}
	d.pool.Close()
	return nil
}

// call runs f with the timeout of a call and says what was attempted.
func (d *driver) call(ctx context.Context, what string, f func(ctx context.Context) error) error {
	return d.limited(ctx, d.timeout, what, f)
}

func (d *driver) limited(ctx context.Context, within time.Duration, what string, f func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := f(limited)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("postgres: %s: %w", what, errors.Join(context.Cause(ctx), err))
	}
	return fmt.Errorf("postgres: %s: %w", what, oneLine{classify(err)})
}

// oneLine is an error whose text fits a line of a log: pgx puts each address
// that it tried on a line of its own.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLine) Unwrap() error { return e.error }

// ours are the errors that are answers, not failures of the database.
var ours = []error{queue.ErrNotFound, queue.ErrRunning, queue.ErrLeaseLost, store.ErrUnavailable, store.ErrOutdated, errOlder, store.ErrItemExists, store.ErrExists}

// classify marks the errors after which the same call may succeed: all that
// did not come from the server, and those that say that it is in trouble.
func classify(err error) error {
	for _, e := range ours {
		if errors.Is(err, e) {
			return err
		}
	}
	var answer *pgconn.PgError
	var connect *pgconn.ConnectError
	if errors.As(err, &answer) && !errors.As(err, &connect) && !troubled(answer.Code) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

func troubled(code string) bool {
	switch code {
	case "55P03", "25P03", "25006": // lock not available, idle too long, now read-only
		return true
	}
	if len(code) < 2 {
		return false
	}
	switch code[:2] {
	case "08", "40", "53", "57", "58": // connection, rollback, resources, operator, system
		return true
	}
	return false
}

// definite reports whether the server said that a transaction failed, so that
// it cannot have committed.
func definite(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Severity == "ERROR"
}

// scan is the Scan method of a row.
type scan func(dest ...any) error

func drain(rows pgx.Rows, f func(scan) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
