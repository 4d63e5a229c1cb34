package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
	"github.com/casemate/casemate/host/tenant"
)

// OpenStore opens the database that c.Store names and brings its schema up to
// date. Read-only, it does neither that nor anything else to it, and may be
// opened beside a server.
func OpenStore(ctx context.Context, c Config, readOnly bool) (store.Driver, error) {
	if path, ok := strings.CutPrefix(c.Store, "sqlite:"); ok {
		if !readOnly {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return nil, fmt.Errorf("store: %w", err)
			}
		}
		return sqlite.Open(ctx, path, sqlite.Options{ReadOnly: readOnly})
	}
	if !isPostgres(c.Store) {
		return nil, errors.New("store: want sqlite:PATH or postgres://…")
	}
	return postgres.Open(ctx, c.Store, postgres.Options{ReadOnly: readOnly, Listen: c.Notify})
}

func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// limits returns the lanes and gates of every tenant, or of the one there is
// without any: one without limits gets the defaults back, in case it had some.
func limits(c Config) store.Limits {
	tenants := c.Tenants
	if len(tenants) == 0 {
		tenants = []Tenant{{Name: tenant.Default}}
	}
	var l store.Limits
	for _, t := range tenants {
		for _, m := range c.Models {
			lane := queue.Lane{Tenant: t.Name, Model: m.Name, Weight: t.Weight, Cap: t.MaxRunning, Reserve: t.Reserve.of(t.MaxRunning)}
			if lane.Weight <= 0 {
				lane.Weight = 1
			}
			l.Lanes = append(l.Lanes, lane)
		}
		l.Gates = append(l.Gates, queue.Gate{Tenant: t.Name, Cap: t.MaxRunningTotal, Reserve: t.Reserve.of(t.MaxRunningTotal)})
	}
	return l
}

// of returns the reserve of a cap, 0 for none.
func (r Reserve) of(limit int) queue.Reserve {
	switch {
	case limit == 0:
		return queue.Reserve{}
	case r.Queued == 0 && r.Realtime+1 < limit:
		return queue.Reserve{Realtime: r.Realtime, Queued: 1}
	}
	return queue.Reserve{Realtime: r.Realtime, Queued: max(r.Queued, 0)}
}

// Scratch returns c with a store beside its own, on the same server or disk,
// that is empty and that drop removes with all that is in it.
func Scratch(ctx context.Context, c Config) (scratch Config, drop func(context.Context) error, err error) {
	if path, ok := strings.CutPrefix(c.Store, "sqlite:"); ok {
		dir, err := os.MkdirTemp(filepath.Dir(path), ".casemate-scratch-")
		if err != nil {
			return Config{}, nil, fmt.Errorf("host: scratch: %w", err)
		}
		c.Store = "sqlite:" + filepath.Join(dir, "scratch.db")
		return c, func(context.Context) error { return os.RemoveAll(dir) }, nil
	}
	if !isPostgres(c.Store) {
		return Config{}, nil, errors.New("host: scratch: store: want sqlite:PATH or postgres://…")
	}
	c.Store, drop, err = postgres.Scratch(ctx, c.Store)
	return c, drop, err
}
