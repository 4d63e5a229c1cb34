package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// TestUpgrade: what an older binary stored is there, and takes part in what
// came later.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	first, err := os.ReadFile("migrations/0001_start.sql")
	if err != nil {
		t.Fatal(err)
	}
	id := queue.NewID()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		text string
		args []any
	}{
		{string(first), nil},
		{`create table schema_migration (version integer primary key, name text not null, applied integer not null)`, nil},
		{`insert into schema_migration values (1, '0001_start', 0)`, nil},
		{`insert into lane (id, tenant, model) values (1, 't', 'm')`, nil},
		{`insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, created)
			values (?, 1, '/p', '', 0, 0, 1, 0, 0, 1, 1)`, []any{id[:]}},
		{`insert into step (request, scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt, generation,
			class, status, code, retry_after, usage, fuel) values (?, '', 0, 'tool_call', 'running', 0, x'', x'', '', 'once', 1, 1, '', '', 0, '', 0, '{}', 7)`, []any{id[:]}},
		{`insert into kv values ('t', 'p', 'k', x'31', 0)`, nil},
		{`insert into lane (id, tenant, model, cap, running) values (2, 't', 'capped', 2, 1)`, nil},
		{`insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, attempt, worker, created)
			values (x'00000000000000000000000000000001', 2, '/p', '', 0, 0, 1, 1, 2, 1, 1, 99, 1)`, nil},
	} {
		if _, err := db.Exec(s.text, s.args...); err != nil {
			t.Fatalf("%.60s: %v", s.text, err)
		}
	}
	db.Close()
	d := open(t, path)
	defer d.Close()
	r, err := d.Get(t.Context(), "t", id, store.Parts{Steps: true})
	want := []response.Step{{Kind: response.ToolCall, State: response.Running, Effects: "once", Tries: 1, Attempt: 1, Fuel: 7}}
	if err != nil || !reflect.DeepEqual(r.Steps, want) {
		t.Errorf("Get: got %+v, %v, want %+v", r.Steps, err, want)
	}
	s, err := d.Stats(t.Context())
	if err != nil || len(s.Lanes) != 2 {
		t.Fatalf("Stats: got %+v, %v", s, err)
	}
	if capped, old := s.Lanes[0], s.Lanes[1]; capped.Realtime != 1 || capped.Running != 1 || !old.Head.Equal(time.UnixMilli(1).Add(queue.Patience)) {
		t.Errorf("lanes: got %+v", s.Lanes)
	}
	f := queue.Fence{ID: id, State: queue.Pending}
	put := store.KVPut{Plugin: "p", Key: "k", Checked: true, Had: true, Was: []byte("1"), Value: []byte("2"), TTL: time.Hour}
	if results, err := d.Write(t.Context(), []store.Write{{Fence: f, KV: []store.KVPut{put}}}); err != nil || results[0] != nil {
		t.Errorf("Write: got %v, %v", results, err)
	}
	if v, ok, err := d.KVGet(t.Context(), "t", "p", "k"); err != nil || !ok || string(v) != "2" {
		t.Errorf("KVGet: got %q, %t, %v", v, ok, err)
	}
}
