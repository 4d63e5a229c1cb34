package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/casemate/casemate/host/store"
)

// statsJSON is what queue stats prints for programs. Times are milliseconds.
type statsJSON struct {
	Database string         `json:"database"`
	Schema   int            `json:"schema"`
	States   map[string]int `json:"states"`
	OldestMS int64          `json:"oldest_pending_ms"`
	Overdue  int            `json:"overdue"`
	Orphans  int            `json:"orphans"`
	Lanes    int            `json:"lanes"`
	Workers  []workerJSON   `json:"workers"`
	Tenants  []gateJSON     `json:"tenant_caps"`
	Targets  []targetJSON   `json:"targets"`
}

type workerJSON struct {
	ID       int64     `json:"id"`
	Host     string    `json:"host"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	LeftMS   int64     `json:"lease_left_ms"`
	Draining bool      `json:"draining"`
	Reaped   bool      `json:"reaped"`
	Owned    int       `json:"owned"`
}

type gateJSON struct {
	Tenant   string `json:"tenant"`
	Cap      int    `json:"cap"`
	Running  int    `json:"running"`
	Realtime int    `json:"realtime"`
}

type targetJSON struct {
	Target     string `json:"target"`
	Limit      int    `json:"limit"`
	Shared     int    `json:"shared"`
	CooldownMS int64  `json:"cooldown_ms"`
}

// states are shown in the order of a request's life.
var states = []string{"pending", "waiting", "claimed", "processing", "completed", "failed", "canceled", "expired"}

func queueStats(ctx context.Context, a app, o options, _ []string) error {
	return look(ctx, a, o, func(d store.Driver) error {
		r, err := d.Inspect(ctx)
		if err != nil {
			return err
		}
		s := statsOf(r)
		if o.json {
			return printJSON(a, s)
		}
		return s.print(a.stdout)
	})
}

func statsOf(r store.Report) statsJSON {
	s := statsJSON{
		Database: r.Database, Schema: r.Schema, States: map[string]int{}, OldestMS: r.Oldest.Milliseconds(),
		Overdue: r.Overdue, Orphans: r.Orphans, Lanes: len(r.Lanes),
		Workers: []workerJSON{}, Tenants: []gateJSON{}, Targets: []targetJSON{},
	}
	for _, name := range states {
		s.States[name] = 0
	}
	for state, n := range r.States {
		s.States[state.String()] = n
	}
	for _, w := range r.Workers {
		s.Workers = append(s.Workers, workerJSON{w.ID, w.Host, w.Version, w.Started.UTC(), w.Left.Milliseconds(), w.Draining, w.Reaped, w.Owned})
	}
	for _, g := range r.Gates {
		s.Tenants = append(s.Tenants, gateJSON{g.Tenant, g.Cap, g.Owned, g.OwnedRealtime})
	}
	for _, t := range r.Targets {
		s.Targets = append(s.Targets, targetJSON{t.Target, t.Limit, t.Shared, t.Cooldown.Milliseconds()})
	}
	return s
}

func (s statsJSON) print(w io.Writer) error {
	fmt.Fprintf(w, "%s, schema version %d, %s\n\n", printable(s.Database), s.Schema, count(s.Lanes, "lane"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range states {
		fmt.Fprintf(t, "%s\t%d\t\n", name, s.States[name])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s.States["pending"] > 0 {
		fmt.Fprintf(w, "\nThe oldest pending request is %s old.\n", short(s.OldestMS))
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(s.Workers) > 0 {
		fmt.Fprint(t, "\nWORKER\tHOST\tVERSION\tSTARTED\tLEASE\tHOLDS\t\n")
		for _, x := range s.Workers {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t\n", x.ID, printable(x.Host), printable(x.Version), x.Started.Format(time.DateTime), x.lease(), x.Owned)
		}
	}
	if len(s.Tenants) > 0 {
		fmt.Fprint(t, "\nTENANT\tCAP\tRUNNING\tREALTIME\t\n")
		for _, x := range s.Tenants {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t\n", printable(x.Tenant), x.Cap, x.Running, x.Realtime)
		}
	}
	if len(s.Targets) > 0 {
		fmt.Fprint(t, "\nTARGET\tLIMIT\tSHARED\tRESTS FOR\t\n")
		for _, x := range s.Targets {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t\n", printable(x.Target), orNone(x.Limit), x.Shared, short(x.CooldownMS))
		}
	}
	return t.Flush()
}

// lease says how a worker's lease stands.
func (w workerJSON) lease() string {
	switch {
	case w.Reaped:
		return "reaped"
	case w.LeftMS <= 0:
		return "over for " + short(-w.LeftMS)
	case w.Draining:
		return short(w.LeftMS) + ", draining"
	}
	return short(w.LeftMS)
}

// laneJSON is one line of queue lanes.
type laneJSON struct {
	Tenant   string     `json:"tenant"`
	Model    string     `json:"model"`
	Weight   float64    `json:"weight"`
	Cap      int        `json:"cap"`
	Running  int        `json:"running"`
	Realtime int        `json:"realtime"`
	Pending  int        `json:"pending"`
	Waiting  int        `json:"waiting"`
	Ready    bool       `json:"ready"`
	Parked   bool       `json:"parked"`
	WaitMS   int64      `json:"parked_for_ms"`
	VTime    float64    `json:"virtual_time"`
	Head     *time.Time `json:"head,omitempty"`
}

func queueLanes(ctx context.Context, a app, o options, _ []string) error {
	if o.limit < 0 {
		return wrongUse("queue lanes", "want --limit from 0")
	}
	return look(ctx, a, o, func(d store.Driver) error {
		s, err := d.Stats(ctx)
		if err != nil {
			return err
		}
		lanes := lanesOf(s, o)
		left := 0
		if o.limit > 0 && len(lanes) > o.limit {
			lanes, left = lanes[:o.limit], len(lanes)-o.limit
		}
		if o.json {
			return printJSON(a, lanes)
		}
		return printLanes(a.stdout, lanes, left)
	})
}

// lanesOf returns the lanes that the flags ask for, the fullest first.
func lanesOf(s store.Stats, o options) []laneJSON {
	lanes := []laneJSON{}
	for _, l := range s.Lanes {
		if o.tenant != "" && l.Tenant != o.tenant || o.model != "" && l.Model != o.model {
			continue
		}
		lane := laneJSON{
			Tenant: l.Tenant, Model: l.Model, Weight: l.Weight, Cap: l.Cap, Running: l.Owned, Realtime: l.OwnedRealtime,
			Pending: l.Pending, Waiting: l.Waiting, Ready: l.Ready, Parked: l.Parked, WaitMS: l.Wait.Milliseconds(), VTime: l.VTime,
		}
		if !l.Head.IsZero() {
			head := l.Head.UTC()
			lane.Head = &head
		}
		lanes = append(lanes, lane)
	}
	slices.SortStableFunc(lanes, func(a, b laneJSON) int {
		return cmp.Or(b.Pending-a.Pending, b.Waiting-a.Waiting, b.Running-a.Running)
	})
	return lanes
}

func printLanes(w io.Writer, lanes []laneJSON, left int) error {
	if len(lanes) == 0 {
		fmt.Fprintln(w, "There are no such lanes: a lane begins with its tenant's first request for the model.")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "TENANT\tMODEL\tPENDING\tWAITING\tRUNNING\tCAP\tWEIGHT\tVIRTUAL TIME\tLANE IS\t\n")
	for _, l := range lanes {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%g\t%.2f\t%s\t\n", printable(l.Tenant), printable(l.Model),
			l.Pending, l.Waiting, l.Running, orNone(l.Cap), l.Weight, l.VTime, l.status())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if left > 0 {
		fmt.Fprintf(w, "and %s more: --limit 0 shows all\n", count(left, "lane"))
	}
	return nil
}

func (l laneJSON) status() string {
	switch {
	case l.WaitMS > 0:
		return "parked for " + short(l.WaitMS)
	case l.Parked:
		return "parked at a cap"
	case l.Ready:
		return "ready"
	}
	return "empty"
}

// short writes milliseconds in the unit that fits.
func short(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return strconv.FormatInt(ms, 10) + "ms"
	case d < time.Minute:
		return d.Truncate(100 * time.Millisecond).String()
	}
	return d.Truncate(time.Second).String()
}

func orNone(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}
