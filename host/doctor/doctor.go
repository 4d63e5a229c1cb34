// Package doctor judges what a queue's database says of itself: what is wrong,
// why that matters and what to do. It reads no database and changes nothing.
package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it may become worse, or heal by itself
	Bad  Level = "bad"  // work waits, or is counted wrong, until somebody acts
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`
	Why   string `json:"why,omitempty"` // it matters; "" when it is well
	Do    string `json:"do,omitempty"`
}

// Examine judges a report. Every check gives at least one finding, so that the
// reader sees what was looked at; the worst come first.
func Examine(r store.Report) []Finding {
	var all []Finding
	for _, check := range []func(store.Report) []Finding{
		schema, snapshots, workers, work, orphans, overdue, lanes, gates, targets, tables, indexes, hints,
	} {
		all = append(all, check(r)...)
	}
	rank := []Level{Bad, Warn, OK}
	slices.SortStableFunc(all, func(a, b Finding) int { return slices.Index(rank, a.Level) - slices.Index(rank, b.Level) })
	return all
}

// Worst returns the highest level among findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Bad || worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// well is what a check says that found nothing.
func well(format string, args ...any) []Finding {
	return []Finding{{Level: OK, What: fmt.Sprintf(format, args...)}}
}

// or returns found, or that all is well.
func or(found []Finding, format string, args ...any) []Finding {
	if len(found) > 0 {
		return found
	}
	return well(format, args...)
}

// by returns Bad from bad on, and Warn from warn on.
func by[T int | int64 | float64 | time.Duration](value, warn, bad T) Level {
	switch {
	case value >= bad:
		return Bad
	case value >= warn:
		return Warn
	}
	return OK
}

// sample is how many of a kind are told one by one.
const sample = 5

// atMost keeps the first findings and says how many it left out.
func atMost(found []Finding, what string) []Finding {
	if len(found) <= sample {
		return found
	}
	slices.SortStableFunc(found, func(a, b Finding) int { // bad ones first
		return slices.Index([]Level{Bad, Warn}, a.Level) - slices.Index([]Level{Bad, Warn}, b.Level)
	})
	more := found[sample:]
	rest := Finding{
		Level: more[0].Level, What: fmt.Sprintf("%d more %s", len(more), what),
		Why: "they are like those above", Do: "see casemate queue lanes --json and casemate queue stats --json",
	}
	return append(found[:sample:sample], rest)
}

func schema(r store.Report) []Finding {
	if r.Schema > 0 {
		return well("schema version %d on %s", r.Schema, r.Database)
	}
	return []Finding{{
		Level: Bad, What: "the database has no schema",
		Why: "no host has ever opened it, or it is another one than you meant",
		Do:  "check the URL; if it is right, start a host on it: it makes the tables",
	}}
}

const (
	snapshotWarn = time.Minute
	snapshotBad  = 10 * time.Minute
)

func snapshots(r store.Report) []Finding {
	level := by(r.OldestSnapshot, snapshotWarn, snapshotBad)
	if level == OK {
		hidden := ""
		if strings.Contains(r.Holder, "pg_read_all_stats") {
			hidden = ", of those that this role may see: grant pg_read_all_stats to it to see all"
		}
		return well("oldest snapshot: %s%s", ago(r.OldestSnapshot), hidden)
	}
	holder := r.Holder
	if holder == "" {
		holder = "an unknown session"
	}
	return []Finding{{
		Level: level, What: fmt.Sprintf("a transaction is %s old: %s", ago(r.OldestSnapshot), holder),
		Why: "the database keeps every row that changed since then, so claims read more and more dead rows",
		Do:  "end it (pg_terminate_backend, a forgotten psql, a stuck dump or replication slot), and set idle_in_transaction_session_timeout",
	}}
}

// Others reap a worker some seconds after its lease ended, so one that has
// requests for longer than that shows that nobody does.
const (
	staleWarn = 15 * time.Second
	staleBad  = time.Minute
)

func workers(r store.Report) []Finding {
	var found []Finding
	live := 0
	for _, w := range r.Workers {
		who := fmt.Sprintf("worker %d (%s)", w.ID, w.Host)
		switch {
		case w.Left > 0 && !w.Reaped && !w.Draining:
			live++
		case w.Left > 0 && !w.Reaped && w.Owned > 0:
			found = append(found, Finding{
				Level: Warn, What: fmt.Sprintf("%s drains, with %s left", who, requests(w.Owned)),
				Why: "it claims nothing more; what it runs ends first or is handed back",
				Do:  "nothing, unless it stays so for longer than its drain time: then end the process, and others take its requests over",
			})
		case w.Left <= 0 && !w.Reaped && w.Owned > 0 && -w.Left >= staleWarn:
			found = append(found, Finding{
				Level: by(-w.Left, staleWarn, staleBad),
				What:  fmt.Sprintf("the lease of %s is over for %s and %s still name it", who, ago(-w.Left), requests(w.Owned)),
				Why:   "they wait until another host takes them over, which one does that was healthy for a whole lease",
				Do:    "start a host, or see the log of those that run: their heartbeats and sweeps must succeed",
			})
		}
	}
	return append(atMost(found, "workers with stale leases or draining"), liveness(r, live))
}

// liveness says whether anybody takes work.
func liveness(r store.Report, live int) Finding {
	pending := r.States[queue.Pending] + r.States[queue.Waiting]
	if live > 0 || pending == 0 {
		return Finding{Level: OK, What: fmt.Sprintf("%s, %s queued", count(live, "live worker"), requests(pending))}
	}
	return Finding{
		Level: Bad, What: fmt.Sprintf("no worker is live and %s queued", requests(pending)),
		Why: "nobody will run them",
		Do:  "start a host on this database",
	}
}

func work(r store.Report) []Finding {
	if r.Oldest < queue.Patience {
		return well("oldest pending request: %s", ago(r.Oldest))
	}
	return []Finding{{
		Level: Warn, What: fmt.Sprintf("a request has been pending for %s", ago(r.Oldest)),
		Why: "the queue is behind: more comes than the hosts, or the caps, let through",
		Do:  "see casemate queue lanes for who waits; add hosts or slots, raise caps, or check that the upstreams answer",
	}}
}

func orphans(r store.Report) []Finding {
	if r.Orphans == 0 {
		return well("no orphans")
	}
	return []Finding{{
		Level: Bad, What: fmt.Sprintf("%s held by workers that are reaped or gone", requests(r.Orphans)),
		Why: "nobody will finish them, and they keep slots of their lanes",
		Do:  "a sweep heals that: if it is still so in a minute, see the logs of the hosts for errors of sweep",
	}}
}

// overdueBad is more than a healthy sweep leaves behind.
const overdueBad = 1000

func overdue(r store.Report) []Finding {
	if r.Overdue == 0 {
		return well("nothing is overdue")
	}
	return []Finding{{
		Level: by(r.Overdue, 1, overdueBad), What: fmt.Sprintf("%s overdue: a retry that is due, or a deadline that passed", requests(r.Overdue)),
		Why: "hosts move them on every second, so none does, or none is done with them yet",
		Do:  "look again in a minute; if there are not fewer, see the logs of the hosts for errors of sweep",
	}}
}

// hints says whether hosts hear of each other. It is tried from here, with the
// configuration at hand.
func hints(r store.Report) []Finding {
	switch {
	case r.Deaf == "":
		return well("hints between hosts arrive")
	case strings.HasSuffix(r.Deaf, "listening is off"):
		return well("hints between hosts are off: they poll")
	}
	return []Finding{{
		Level: Warn, What: "hints between hosts do not arrive: " + r.Deaf,
		Why: "work that another host enqueued starts up to half a second later, and a cancel takes until the next heartbeat",
		Do:  "set notify to the URL of a direct connection to the database, or to off if polling is enough",
	}}
}

// ago writes a time as people say it.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than a second"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

func requests(n int) string { return count(n, "request") }

func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "x"):
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
