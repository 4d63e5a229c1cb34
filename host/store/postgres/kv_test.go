package postgres_test

import (
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// TestUpgrade: what an older binary stored is there, and takes part in what
// came later.
func TestUpgrade(t *testing.T) {
	u := testdb.Postgres(t)
	first, err := os.ReadFile("migrations/0001_start.sql")
	if err != nil {
		t.Fatal(err)
	}
	id := queue.NewID()
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PgConn().Exec(t.Context(), string(first)+`;
		create table schema_migration (version integer primary key, name text not null, applied timestamptz not null default now());
		insert into schema_migration values (1, '0001_start');
		insert into lane (tenant, model) values ('t', 'm');
		insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord)
			values ('`+id.String()+`', 1, '/p', '', false, false, true, false, 0, now());
		insert into step (request, scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt, generation,
			class, status, code, retry_after, usage, fuel)
			values ('`+id.String()+`', '', 0, 'tool_call', 'running', false, '', '', '', 'once', 1, 1, '', '', 0, '', 0, '{}', 7);
		insert into kv values ('t', 'p', 'k', '1')`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	c.Close(t.Context())
	d := open(t, u)
	defer d.Close()
	r, err := d.Get(t.Context(), "t", id, store.Parts{Steps: true})
	want := []response.Step{{Kind: response.ToolCall, State: response.Running, Effects: "once", Tries: 1, Attempt: 1, Fuel: 7}}
	if err != nil || !reflect.DeepEqual(r.Steps, want) {
		t.Errorf("Get: got %+v, %v, want %+v", r.Steps, err, want)
	}
	f := queue.Fence{ID: id, State: queue.Pending}
	put := store.KVPut{Plugin: "p", Key: "k", Checked: true, Had: true, Was: []byte("1"), Value: []byte("2"), TTL: time.Hour}
	if results, err := d.Write(t.Context(), []store.Write{{Fence: f, KV: []store.KVPut{put}}}); err != nil || results[0] != nil {
		t.Errorf("Write: got %v, %v", results, err)
	}
	if v, ok, err := d.KVGet(t.Context(), "t", "p", "k"); err != nil || !ok || string(v) != "2" {
		t.Errorf("KVGet: got %q, %t, %v", v, ok, err)
	}
	// The order of keys is not that of the database's language.
	if got := one[string](t, u, `select collation_name::text from information_schema.columns where table_name = 'kv' and column_name = 'key'`); got != "C" {
		t.Errorf("keys are compared as in %q, want C", got)
	}
}

// TestKeysAreFoundByIndex: no statement on plugins' keys reads all of them, nor
// all of a plugin's but to count them.
func TestKeysAreFoundByIndex(t *testing.T) {
	url := testdb.Postgres(t)
	d, err := postgres.Open(t.Context(), url, postgres.Options{Conns: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}
	write := func(w store.Write) {
		t.Helper()
		if results, err := d.Write(t.Context(), []store.Write{w}); err != nil || results[0] != nil {
			t.Fatalf("Write: %v, %v", results, err)
		}
	}
	write(store.Write{Insert: n})
	f := queue.Fence{ID: n.ID, State: queue.Pending}
	cycle := func() {
		t.Helper()
		key := store.KVPut{Plugin: "small", Key: "k", Value: []byte("v"), TTL: time.Hour}
		gone := store.KVPut{Plugin: "small", Key: "k", Delete: true, Checked: true, Had: true, Was: []byte("v")}
		write(store.Write{Fence: f, KV: []store.KVPut{key}})
		_, _, err := d.KVGet(t.Context(), "t", "small", "k")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []store.KVRange{
			{Tenant: "t", Plugin: "large", Prefix: "key 1", Limit: 3},
			{Tenant: "t", Plugin: "large", After: "key 1", Limit: 3},
		} {
			if _, err := d.KVList(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := d.KVUsed(t.Context(), "t", "small"); err != nil {
			t.Fatal(err)
		}
		write(store.Write{Fence: f, KV: []store.KVPut{gone}})
		if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // a generic plan is made at the sixth execution
		cycle()
	}
	const rows = 5000
	for i := 0; i < rows; {
		var kv []store.KVPut
		for range 500 {
			kv = append(kv, store.KVPut{Plugin: "large", Key: fmt.Sprint("key ", i), Value: []byte("v"), TTL: time.Hour})
			i++
		}
		write(store.Write{Fence: f, KV: kv})
	}
	const cycles = 20
	for range cycles {
		cycle()
	}
	d.Close() // a session's counters arrive when it ends
	if n := scanned(t, url, "kv"); n >= rows {
		t.Errorf("%d rows of keys were read one after the other in %d cycles; want next to none", n, cycles)
	}
}
