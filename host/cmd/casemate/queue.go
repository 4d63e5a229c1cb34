package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/doctor"
	"github.com/casemate/casemate/host/store"
)

// whichQueue is what the help of these commands says of the database.
const whichQueue = `

The database is that of --store, else of --config, else the one that serve uses
without a configuration. It is opened read-only, beside the hosts that use it.`

// queueCommands are those that look at a queue.
func queueCommands() []*command {
	config := flagDef{name: "config", arg: "FILE", text: "configuration that names the store"}
	url := flagDef{name: "store", arg: "URL", text: "sqlite:PATH or postgres://…; goes over the configuration's"}
	asJSON := flagDef{name: "json", text: "print JSON"}
	return []*command{
		{
			name: "queue stats", args: "[--config FILE] [--store URL] [--json]", run: queueStats,
			flags: []flagDef{config, url, asJSON},
			short: "count requests, workers and what upstreams share",
			long: `Stats counts the requests in each state and shows the workers, the caps of
tenants and the limits of upstream targets.` + whichQueue,
		},
		{
			name: "queue lanes", args: "[--tenant T] [--model M] [--limit N]", run: queueLanes,
			flags: []flagDef{
				config, url,
				{name: "tenant", arg: "T", text: "only this tenant's lanes"},
				{name: "model", arg: "M", text: "only this model's lanes"},
				{name: "limit", arg: "N", text: "how many at most, 50; 0: all"},
				asJSON,
			},
			short: "show the lanes, the fullest first",
			long: `Lanes shows the queue of each tenant and model, the one with the most pending
requests first: its weight and cap, what runs, waits and pends, whether it can be
claimed from, and its virtual time, by which claims go.

A lane is ready, empty, or parked: by its cap, by its tenant's cap, or for as
long as a rate limit said.` + whichQueue,
		},
		{
			name: "queue doctor", args: "[--config FILE] [--store URL] [--json]", run: queueDoctor,
			flags: []flagDef{config, url, asJSON},
			short: "tell what is wrong with the queue and what to do",
			long: `Doctor looks at old snapshots, stale leases, orphaned and overdue requests,
counters that differ from rows, tables and indexes, and says of each thing that is
wrong why it matters and what to do. It changes nothing.

It exits with 1 when something is bad. A warning does not: it may heal by itself.` + whichQueue,
		},
		{
			name: "queue bench", args: "[--store URL] [--backlog N] [--quick]", run: queueBench,
			flags: []flagDef{
				config, url,
				{name: "backlog", arg: "N", text: "the largest backlog, 1000000"},
				{name: "quick", text: "fewer samples and small backlogs: some seconds in place of minutes"},
			},
			short: "measure the queue on your database",
			long: `Bench measures what claims cost beside a backlog, how fair they are, whether a
cap holds, how many requests a second go through and how soon they start.

It makes a schema of its own in a PostgreSQL database, or a file of its own beside
a SQLite file, and removes it afterwards, at an interrupt too. It touches no table
that is in use, but its load is real: run it where that disturbs nobody. A million
requests take about 1 GB while it runs, and some minutes.

The database is that of --store, else of --config, else the one that serve uses
without a configuration.`,
		},
	}
}

// storeOf returns the configuration of the store that the flags name.
func storeOf(a app, o options) (host.Config, error) {
	if o.config == "" && o.store != "" {
		return host.Config{Store: o.store}, nil
	}
	c, err := host.LoadStoreConfig(o.config, a.environ)
	if o.store != "" {
		c.Store = o.store
	}
	return c, err
}

// look lends f the store that the flags name, read-only.
func look(ctx context.Context, a app, o options, f func(store.Driver) error) error {
	c, err := storeOf(a, o)
	if err != nil {
		return err
	}
	if err := exists(c.Store); err != nil {
		return err
	}
	d, err := host.OpenStore(ctx, c, true)
	if err != nil {
		return helpful(err)
	}
	defer d.Close()
	return helpful(f(d))
}

// exists says what to do when a SQLite file is not there.
func exists(url string) error {
	path, ok := strings.CutPrefix(url, "sqlite:")
	if !ok {
		return nil
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: no such file: name another with --store or --config, or start a host, which makes it", url)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory: want a file", url)
	}
	return nil
}

// helpful adds what to do to an error of a database that cannot be reached.
func helpful(err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%w\nIs the database running, and is the URL right? A SQLite file must be readable, and its directory writable", err)
	}
	return err
}

// printJSON writes v as people can read it.
func printJSON(a app, v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// errSick is the end of an examination that found something bad.
var errSick = errors.New("something is bad")

func queueDoctor(ctx context.Context, a app, o options, _ []string) error {
	return look(ctx, a, o, func(d store.Driver) error {
		r, err := d.Inspect(ctx)
		if err != nil {
			return err
		}
		found := doctor.Examine(r)
		if o.json {
			err = printJSON(a, found)
		} else {
			printFindings(a, found)
		}
		if err == nil && doctor.Worst(found) == doctor.Bad {
			err = errSick
		}
		return err
	})
}

func printFindings(a app, found []doctor.Finding) {
	for _, f := range found {
		fmt.Fprintf(a.stdout, "%-5s %s\n", f.Level, printable(f.What))
		if f.Level != doctor.OK {
			fmt.Fprintf(a.stdout, "      why: %s\n      do:  %s\n", printable(f.Why), printable(f.Do))
		}
	}
}
