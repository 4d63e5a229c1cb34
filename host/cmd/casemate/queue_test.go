package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// casemate runs a command line and returns what it printed and its exit code.
func casemate(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: os.Environ()}, args)
	return out.String(), errs.String(), code
}

// served opens a store as a server does, with requests in it: three of tenant b
// and one of tenant a for model m, one of tenant a for model n.
func served(t *testing.T, url string) store.Driver {
	t.Helper()
	d, err := host.OpenStore(t.Context(), host.Config{Store: url}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.Heartbeat(t.Context(), store.Beat{Host: "h", Version: "v", Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	var writes []store.Write
	for _, lane := range []string{"b m", "a m", "b m", "a n", "b m"} {
		tenant, model, _ := strings.Cut(lane, " ")
		writes = append(writes, store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: tenant, Model: model, Path: "/v1/responses", Background: true, Body: []byte("{}")}})
	}
	results, err := d.Write(t.Context(), writes)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range results {
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestQueue looks at a store that a server has open.
func TestQueue(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		served(t, url)
		t.Run("stats", func(t *testing.T) {
			out, errs, code := casemate(t, "queue", "stats", "--store", url, "--json")
			var got statsJSON
			if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil {
				t.Fatalf("exit code %d, %v, %s%s", code, err, out, errs)
			}
			if got.States["pending"] != 5 || got.States["failed"] != 0 || len(got.States) != 8 || got.Lanes != 3 || len(got.Workers) != 1 || got.Schema == 0 || got.Tenants == nil {
				t.Errorf("got %s", out)
			}
		})
		t.Run("lanes", func(t *testing.T) {
			for _, c := range []struct {
				args string
				want string // tenant, model, pending
			}{
				{"", "b m 3, a m 1, a n 1"},
				{"--tenant a", "a m 1, a n 1"},
				{"--model m", "b m 3, a m 1"},
				{"--tenant a --model n", "a n 1"},
				{"--limit 1", "b m 3"},
				{"--limit 0", "b m 3, a m 1, a n 1"},
			} {
				out, errs, code := casemate(t, append([]string{"queue", "lanes", "--store", url, "--json"}, strings.Fields(c.args)...)...)
				var lanes []laneJSON
				if err := json.Unmarshal([]byte(out), &lanes); code != 0 || err != nil {
					t.Fatalf("%s: exit code %d, %v, %s%s", c.args, code, err, out, errs)
				}
				var got []string
				for _, l := range lanes {
					n, _ := json.Marshal(l.Pending)
					got = append(got, l.Tenant+" "+l.Model+" "+string(n))
				}
				if s := strings.Join(got, ", "); s != c.want {
					t.Errorf("%q: got %s, want %s", c.args, s, c.want)
				}
			}
			out, _, _ := casemate(t, "queue", "lanes", "--store", url, "--limit", "1")
			if !strings.Contains(out, "and 2 lanes more: --limit 0") || strings.Count(out, "\n") != 3 {
				t.Errorf("with a limit of 1:\n%s", out)
			}
		})
		t.Run("doctor", func(t *testing.T) {
			if out, errs, code := casemate(t, "queue", "doctor", "--store", url); code != 0 {
				t.Errorf("a healthy store: exit code %d\n%s%s", code, out, errs)
			}
			spoil(t, url, `update request set worker = 999 where state = 0`)
			out, errs, code := casemate(t, "queue", "doctor", "--store", url)
			if code != 1 || !strings.HasPrefix(out, "bad   5 requests held") || !strings.Contains(out, "\n      do:  ") || !strings.Contains(errs, "something is bad") {
				t.Errorf("with orphans: exit code %d\n%s%s", code, out, errs)
			}
			out, _, code = casemate(t, "queue", "doctor", "--store", url, "--json")
			if code != 1 || !strings.Contains(out, `"level": "bad"`) || !strings.Contains(out, `"do": `) {
				t.Errorf("with orphans, as JSON: exit code %d\n%s", code, out)
			}
		})
		t.Run("newer schema", func(t *testing.T) {
			spoil(t, url, newerSchema)
			if out, errs, code := casemate(t, "queue", "stats", "--store", url); code != 1 || !strings.Contains(errs, "newer") {
				t.Errorf("exit code %d\n%s%s", code, out, errs)
			}
		})
	})
}

// newerSchema is what a newer binary leaves.
const newerSchema = `insert into schema_migration (version, name, applied) values (9999, 'later', '2030-01-01')`

// TestQueueReadsOnly: what only looks does not make the schema.
func TestQueueReadsOnly(t *testing.T) {
	url := testdb.Postgres(t)
	if out, errs, code := casemate(t, "queue", "stats", "--store", url); code != 1 || strings.Contains(errs, "relation") {
		t.Errorf("an empty database: exit code %d\n%s%s", code, out, errs)
	}
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var tables int
	if err := db.QueryRow(`select count(*) from pg_tables where schemaname = 'public'`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("got %d tables, %v; want none", tables, err)
	}
}

// TestQueueBenchPostgres: the tables in use stay as they are, and no schema is
// left, not after an interrupt either.
func TestQueueBenchPostgres(t *testing.T) {
	url := testdb.Postgres(t)
	d := served(t, url)
	if out, errs, code := casemate(t, "queue", "bench", "--store", url, "--quick", "--backlog", "1000"); code != 0 || !strings.Contains(out, "another host") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out bytes.Buffer
	code := run(ctx, app{stdout: &out, stderr: cancelAt{"measuring claims", stop}}, []string{"queue", "bench", "--store", url, "--backlog", "1000"})
	if code != 1 || out.Len() != 0 {
		t.Errorf("interrupted: exit code %d\n%s", code, &out)
	}
	if s, err := d.Stats(t.Context()); err != nil || s.States[queue.Pending] != 5 || len(s.Lanes) != 3 {
		t.Errorf("the store in use: got %+v, %v", s, err)
	}
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var left int
	if err := db.QueryRow(`select count(*) from pg_namespace where nspname like 'casemate%'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("got %d schemas left, %v; want none", left, err)
	}
}

// cancelAt cancels when it is written a text.
type cancelAt struct {
	text   string
	cancel func()
}

func (c cancelAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.cancel()
	}
	return len(p), nil
}

// spoil runs a statement past the driver.
func spoil(t *testing.T, url, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		db, err = sql.Open("sqlite", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}
