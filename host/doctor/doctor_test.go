package doctor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/doctor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// healthy is a report with nothing wrong in it, and something of everything.
func healthy() store.Report {
	return store.Report{
		Database: "PostgreSQL 15.18", Schema: 3,
		Stats: store.Stats{
			States: map[queue.State]int{queue.Pending: 7, queue.Processing: 2},
			Lanes: []store.LaneStat{{
				Lane:  queue.Lane{Tenant: "a", Model: "m", Weight: 1, Cap: 4, Reserve: queue.Reserve{Realtime: 1}},
				Slots: store.Slots{Running: 2, Realtime: 1, Owned: 2, OwnedRealtime: 1}, Pending: 7, Ready: true,
			}},
			Gates: []store.GateStat{{
				Gate: queue.Gate{Tenant: "a", Cap: 9}, Slots: store.Slots{Running: 2, Realtime: 1, Owned: 2, OwnedRealtime: 1},
			}},
		},
		Workers:        []store.WorkerStat{{ID: 1, Host: "h", Left: 15 * time.Second, Owned: 2}},
		Targets:        []store.TargetStat{{Target: "up/m", Limit: 8, Shared: 8}},
		OldestSnapshot: 2 * time.Second,
		Tables:         []store.TableStat{{Name: "request", Rows: 1_000_000, Dead: 50_000, Bytes: 1 << 28}},
		Indexes: []store.IndexStat{
			{Name: "request_lane", Table: "request", Bytes: 100 << 20, Valid: true, Scans: 9},
			{Name: "request_pkey", Table: "request", Bytes: 100 << 20, Valid: true},
		},
		Oldest: time.Minute,
	}
}

func TestExamine(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*store.Report)
		level doctor.Level
		what  string // of the finding of that level
		do    string
	}{
		{"healthy", func(*store.Report) {}, doctor.OK, "", ""},
		{"no schema", func(r *store.Report) { r.Schema = 0 }, doctor.Bad, "no schema", "URL"},

		{"snapshot of a minute", func(r *store.Report) { r.OldestSnapshot, r.Holder = time.Minute, "psql of ada" }, doctor.Warn, "1 min old: psql of ada", "pg_terminate_backend"},
		{"snapshot below a minute", func(r *store.Report) { r.OldestSnapshot = time.Minute - 1 }, doctor.OK, "", ""},
		{"snapshot of ten minutes", func(r *store.Report) { r.OldestSnapshot = 10 * time.Minute }, doctor.Bad, "10 min old: an unknown session", "pg_terminate_backend"},

		{"lease just over", func(r *store.Report) { r.Workers = append(r.Workers, gone(14*time.Second, 1)) }, doctor.OK, "", ""},
		{"stale lease", func(r *store.Report) { r.Workers = append(r.Workers, gone(15*time.Second, 1)) }, doctor.Warn, "over for 15s and 1 request still", "heartbeats"},
		{"old stale lease", func(r *store.Report) { r.Workers = append(r.Workers, gone(time.Minute, 3)) }, doctor.Bad, "over for 1 min and 3 requests", "heartbeats"},
		{"old lease with nothing", func(r *store.Report) { r.Workers = append(r.Workers, gone(time.Hour, 0)) }, doctor.OK, "", ""},
		{"reaped lease", func(r *store.Report) {
			w := gone(time.Hour, 1)
			w.Reaped = true
			r.Workers = append(r.Workers, w)
		}, doctor.OK, "", ""},
		{"draining", func(r *store.Report) {
			r.Workers = append(r.Workers, store.WorkerStat{ID: 2, Host: "h2", Left: time.Second, Draining: true, Owned: 1})
		}, doctor.Warn, "worker 2 (h2) drains, with 1 request", "end the process"},
		{"many stale leases", func(r *store.Report) {
			for range 7 {
				r.Workers = append(r.Workers, gone(time.Minute, 1))
			}
		}, doctor.Bad, "2 more workers", "--json"},

		{"nobody works", func(r *store.Report) { r.Workers = nil }, doctor.Bad, "no worker is live and 7 requests", "start a host"},
		{"only one that drains", func(r *store.Report) { r.Workers[0].Draining, r.Workers[0].Owned = true, 0 }, doctor.Bad, "no worker is live", "start a host"},
		{"nobody works on nothing", func(r *store.Report) {
			r.Workers, r.States, r.Lanes = nil, nil, nil
		}, doctor.OK, "", ""},

		{"old request", func(r *store.Report) { r.Oldest = 61 * time.Minute }, doctor.Warn, "pending for 1 h 1 min", "queue lanes"},
		{"orphans", func(r *store.Report) { r.Orphans = 2 }, doctor.Bad, "2 requests held by workers", "sweep"},
		{"overdue", func(r *store.Report) { r.Overdue = 1 }, doctor.Warn, "1 request overdue", "sweep"},
		{"far overdue", func(r *store.Report) { r.Overdue = 1000 }, doctor.Bad, "1000 requests overdue", "sweep"},

		{"lane's counter", func(r *store.Report) { r.Lanes[0].Running = 3 }, doctor.Bad, `lane "a" "m" counts 3 running (1 realtime), and 2 (1) are`, "restart a host"},
		{"lane's realtime", func(r *store.Report) { r.Lanes[0].Realtime = 0 }, doctor.Bad, `counts 2 running (0 realtime)`, "restart a host"},
		{"lane without a cap counts nothing", func(r *store.Report) { r.Lanes[0].Cap, r.Lanes[0].Running = 0, 0 }, doctor.OK, "", ""},
		{"lane above its cap", func(r *store.Report) { r.Lanes[0].Cap = 1 }, doctor.Warn, "runs 2, more than its cap of 1", "lowered"},
		{"gate's counter", func(r *store.Report) { r.Gates[0].Owned = 1 }, doctor.Bad, `the gate of tenant "a" counts 2`, "restart a host"},
		{"parked with room", func(r *store.Report) { r.Lanes[0].Parked = true }, doctor.Warn, "is parked, though it has room and 7 requests", "few seconds"},
		{"parked, told to wait", func(r *store.Report) { r.Lanes[0].Parked, r.Lanes[0].Wait = true, time.Second }, doctor.OK, "", ""},
		{"parked, full but for the reserve", func(r *store.Report) {
			l := &r.Lanes[0]
			l.Parked, l.Slots = true, store.Slots{Running: 3, Owned: 3}
		}, doctor.OK, "", ""},
		{"parked by the gate", func(r *store.Report) { r.Lanes[0].Parked, r.Gates[0].Cap = true, 2 }, doctor.OK, "", ""},
		{"parked and empty", func(r *store.Report) { r.Lanes[0].Parked, r.Lanes[0].Pending = true, 0 }, doctor.OK, "", ""},
		{"asleep", func(r *store.Report) { r.Lanes[0].Ready = false }, doctor.Warn, "sleeps, though it has 7 requests", "few seconds"},
		{"shares above the limit", func(r *store.Report) { r.Targets[0].Limit = 7 }, doctor.Bad, `share 8 slots of target "up/m", more than its limit of 7`, "report it"},
		{"target without a limit", func(r *store.Report) { r.Targets[0].Limit = 0 }, doctor.OK, "", ""},

		{"deaf", func(r *store.Report) { r.Deaf = "a pooler is in between" }, doctor.Warn, "do not arrive: a pooler", "notify"},
		{"listening is off", func(r *store.Report) { r.Deaf = "listening is off" }, doctor.OK, "", ""},

		{"dead rows", func(r *store.Report) { r.Tables[0].Dead = 250_000 }, doctor.Warn, "table request: 20 % of its rows are dead (250000), never vacuumed", "vacuum analyze request"},
		{"mostly dead rows", func(r *store.Report) { r.Tables[0].Dead = 1_000_000 }, doctor.Bad, "50 % of its rows", "vacuum analyze request"},
		{"few rows, all dead", func(r *store.Report) { r.Tables[0].Rows, r.Tables[0].Dead = 0, 9999; r.Indexes = nil }, doctor.OK, "", ""},
		{"small and busy", func(r *store.Report) {
			r.Tables = append(r.Tables, store.TableStat{Name: "lane", Rows: 1000, Dead: 100_000, Bytes: 40 << 20})
		}, doctor.OK, "", ""},
		{"statistics were reset", func(r *store.Report) { r.Tables[0] = store.TableStat{Name: "request", Bytes: 1 << 30} }, doctor.OK, "", ""},
		{"invalid index", func(r *store.Report) { r.Indexes[0].Valid = false }, doctor.Bad, "index request_lane on request is invalid", "reindex index concurrently request_lane"},
		{"invalid index of SQLite", func(r *store.Report) { r.Indexes[0].Valid, r.Database = false, "SQLite 3.54" }, doctor.Bad, "is invalid", "reindex request_lane"},
		{"bloated index", func(r *store.Report) { r.Indexes[0].Bytes = 500 << 20 }, doctor.Warn, "has 500 MB for about 1000000 rows", "reindex index concurrently request_lane"},
		{"index that is not used", func(r *store.Report) {
			r.Indexes = append(r.Indexes, store.IndexStat{Name: "mine", Table: "request", Bytes: 64 << 20, Valid: true})
		}, doctor.Warn, "index mine on request has 64 MB and was never used", "drop it"},
		{"no scans are counted", func(r *store.Report) { r.Indexes[0].Scans = 0 }, doctor.OK, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := healthy()
			c.spoil(&r)
			got := doctor.Examine(r)
			if worst := doctor.Worst(got); worst != c.level {
				t.Errorf("worst: got %s, want %s\n%s", worst, c.level, text(got))
			}
			if got[0].Level != c.level {
				t.Errorf("the first is %s, not %s", got[0].Level, c.level)
			}
			if c.what == "" {
				return
			}
			for _, f := range got {
				if f.Level == c.level && strings.Contains(f.What, c.what) && strings.Contains(f.Do, c.do) && f.Why != "" {
					return
				}
			}
			t.Errorf("no %s finding %q that says %q:\n%s", c.level, c.what, c.do, text(got))
		})
	}
}

// Each bad thing is told with the others, not in place of them.
func TestExamineTellsAll(t *testing.T) {
	r := healthy()
	r.Orphans, r.Overdue, r.Schema = 1, 1, 0
	levels := map[doctor.Level]int{}
	for _, f := range doctor.Examine(r) {
		levels[f.Level]++
	}
	if levels[doctor.Bad] != 2 || levels[doctor.Warn] != 1 || levels[doctor.OK] < 6 {
		t.Errorf("got %v, want 2 bad, 1 warn and the rest ok", levels)
	}
}

func gone(over time.Duration, owned int) store.WorkerStat {
	return store.WorkerStat{ID: 9, Host: "gone", Left: -over, Owned: owned}
}

func text(all []doctor.Finding) string {
	var b strings.Builder
	for _, f := range all {
		b.WriteString(string(f.Level) + ": " + f.What + " | " + f.Do + "\n")
	}
	return b.String()
}
