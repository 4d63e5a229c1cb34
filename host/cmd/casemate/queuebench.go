package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/queuebench"
	"github.com/casemate/casemate/host/store"
)

// errInterrupted is the end of a bench that was told to stop.
var errInterrupted = errors.New("interrupted; what it made in the database is removed")

func queueBench(ctx context.Context, a app, o options, _ []string) error {
	if o.backlog != 0 && o.backlog < queuebench.MinBacklog {
		return wrongUse("queue bench", fmt.Sprintf("want --backlog from %d", queuebench.MinBacklog))
	}
	c, err := storeOf(a, o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	path, sqlite := strings.CutPrefix(c.Store, "sqlite:")
	results, err := queuebench.Run(ctx, queuebench.Options{
		Scratch: func(ctx context.Context) (queuebench.Database, error) { return scratch(ctx, c) },
		Shared:  !sqlite, Backlog: o.backlog, Quick: o.quick,
		Progress: func(what string) { fmt.Fprintln(a.stderr, "measuring", what) },
	})
	switch {
	case ctx.Err() != nil && onlyCanceled(err):
		return errInterrupted
	case err != nil && sqlite:
		return fmt.Errorf("%s: %w", path, helpful(err))
	case err != nil:
		return helpful(err)
	}
	return results.Print(a.stdout)
}

// onlyCanceled reports whether err says no more than that its context ended.
func onlyCanceled(err error) bool { return !errors.Is(err, queuebench.ErrLeft) }

// scratch makes a database of the bench's own beside the store of c.
func scratch(ctx context.Context, c host.Config) (queuebench.Database, error) {
	own, drop, err := host.Scratch(ctx, c)
	if err != nil {
		return queuebench.Database{}, err
	}
	return queuebench.Database{
		Open: func(ctx context.Context, listen bool) (store.Driver, error) {
			c := own
			c.Notify = "off"
			if listen {
				c.Notify = "" // on the store's own URL
			}
			return host.OpenStore(ctx, c, false)
		},
		Drop: drop,
	}, nil
}
