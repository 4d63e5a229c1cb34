package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// fillTalks adds conversations, each with an item and held by a request, items of
// the first, and idempotency keys.
const fillTalks = `
insert into conversation (id, tenant, metadata, version, holder)
select lpad(to_hex(i), 32, '0')::uuid, 't', '', 1000000 + i, lpad(to_hex(i), 32, '0')::uuid from generate_series(%[1]d, %[2]d) i;
insert into conversation_item (conversation, seq, id, data)
select c::uuid, i, 'i' || i, '{}' from generate_series(%[1]d, %[2]d) i, lateral (values (lpad('1', 32, '0')), (lpad(to_hex(i), 32, '0'))) as x(c)
where i > 1 or c = lpad('1', 32, '0') on conflict do nothing;
insert into idempotency (tenant, key, body_hash, request)
select 't', 'k' || i, '', lpad(to_hex(i), 32, '0')::uuid from generate_series(%[1]d, %[2]d) i;
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord)
select lpad(to_hex(i), 32, '0')::uuid, 1, '/p', 'default', false, true, true, false, 2, now() from generate_series(%[1]d, %[2]d) i`

// TestPlansOfConversations explains what joins, appends, keys and pages run, with
// statistics from when nothing was there.
func TestPlansOfConversations(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	exec(t, conn, `alter table request set (autovacuum_enabled = off)`, `alter table conversation set (autovacuum_enabled = off)`,
		`alter table conversation_item set (autovacuum_enabled = off)`, `alter table idempotency set (autovacuum_enabled = off)`, `analyze`)
	var ids, names []string
	var versions []int64
	for i := range 50 {
		ids, names = append(ids, fmt.Sprintf("%032x", 100*i+1)), append(names, fmt.Sprint("k", 100*i+1))
		versions = append(versions, int64(i))
	}
	tenants, text := all(50, "t"), all(50, `\x78`)
	locks := map[string][]any{
		"lockOnce":    {tenants, names, text, ids, store.KeepKeys.Microseconds(), store.Withdrawn},
		"giveOnce":    {tenants, names, text, ids},
		"freeOnce":    {tenants, names},
		"lockTalks":   {ids},
		"holders":     {ids},
		"changeTalks": {ids, versions, ids},
		"append":      {ids, all(50, 2_000_000), all(50, "new"), text},
		"addItems":    {ids[0], "t", []string{"a", "b"}, text[:2]},
	}
	reads := map[string][]any{
		"removeKeys": {store.KeepKeys.Microseconds(), 5000, 7},
		"newest":     {ids[0], 5000, 21},
		"oldest":     {ids[0], 5000, 21},
		"item":       {ids[0], "i5000", "t"},
	}
	small := map[string]int{}
	from := 1
	for _, n := range []int{5_000, 50_000} {
		if _, err := conn.PgConn().Exec(t.Context(), fmt.Sprintf(fillTalks, from, n)).ReadAll(); err != nil {
			t.Fatal(err)
		}
		check := func(name string, args []any, guarded bool) {
			p := explain(t, conn, guarded, postgres.Statements[name], args)
			for _, table := range []string{"conversation", "conversation_item", "idempotency", "request"} {
				if strings.Contains(string(p), "Seq Scan on "+table+" ") {
					t.Errorf("%s of %d reads all of %s\n%s", name, n, table, p)
				}
			}
			if from == 1 {
				small[name] = max(small[name], p.buffers())
			} else if got := p.buffers(); got > 2*small[name]+50 {
				t.Errorf("%s: %d buffers of %d, %d of a tenth\n%s", name, got, n, small[name], p)
			}
		}
		for name, args := range locks {
			check(name, args, true)
		}
		for name, args := range reads {
			check(name, args, true)
			check(name, args, false)
		}
		from = n + 1
	}
}
