package postgres_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// fillBatches adds lines with their requests to a batch, and beside it batches
// that ended, some of them to be removed, files, some of them gone, and chunks.
const fillBatches = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, batch, line)
select lpad(to_hex(i), 32, '0')::uuid, 1, '/p', 'default', false, false, true, false, (array[0, 0, 10, 11])[1 + i %% 4], now(),
	case when i %% 10 = 0 then lpad('b2', 32, '0')::uuid else lpad('b1', 32, '0')::uuid end, i from generate_series(%[1]d, %[2]d) i;
insert into batch_line (batch, line, custom_id, start, size, request)
select lpad('b1', 32, '0')::uuid, i, 'c' || i, i, 1, lpad(to_hex(i), 32, '0')::uuid from generate_series(%[1]d, %[2]d) i;
insert into result (request, status, content_type, data)
select lpad(to_hex(i), 32, '0')::uuid, 200, 'application/json', '{}' from generate_series(%[1]d, %[2]d) i where i %% 4 = 2;
insert into batch (id, tenant, endpoint, completion_window, input, input_bytes, state, due, expires, ended, settled)
select ('c' || lpad(to_hex(i), 31, '0'))::uuid, 't' || i %% 100, '/p', '24h', lpad(to_hex(i), 32, '0')::uuid, 1, 10, null, now(),
	now() - i * interval '1 second', true from generate_series(%[1]d, %[2]d) i;
insert into file (id, tenant, name, purpose, state, expires)
select lpad(to_hex(i), 32, '0')::uuid, 't' || i %% 100, 'x', 'batch', case when i %% 100 = 0 then 2 when i %% 1000 = 1 then 0 else 1 end,
	case when i %% 2 = 0 then now() + i * interval '1 second' end from generate_series(%[1]d, %[2]d) i;
insert into file_chunk (file, n, data) select lpad(to_hex(i), 32, '0')::uuid, 0, 'x' from generate_series(%[1]d, %[2]d) i`

// wholeTable matches a scan of a table that may be large.
var wholeTable = regexp.MustCompile(`Seq Scan on (request|batch|batch_line|file|file_chunk|result_\w+) .*actual rows`)

// TestPlansOfBatches explains what batches and files are worked on with, and what
// their clients ask for, when statistics are from when nothing was there and when
// they are right: nothing reads a whole table.
func TestPlansOfBatches(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tables := []string{"request", "batch", "batch_line", "file", "file_chunk"}
	for _, table := range tables {
		exec(t, conn, `alter table `+table+` set (autovacuum_enabled = off)`)
	}
	exec(t, conn, `insert into lane (tenant, model) values ('t1', 'm')`, `analyze`, `
insert into batch (id, tenant, endpoint, completion_window, input, input_bytes, state, expires)
values (lpad('b1', 32, '0')::uuid, 't1', '/p', '24h', lpad('1', 32, '0')::uuid, 1, 1, now() + interval '1 day')`)
	id := fmt.Sprintf("%032s", "b1")
	var ids, customs []string
	for i := range 200 {
		ids, customs = append(ids, fmt.Sprintf("%032x", 4*i+2)), append(customs, fmt.Sprint("c", 40*i))
	}
	hour := store.TidyRequest{}.WithDefaults().Unfinished.Microseconds()
	statements := map[string][]any{
		"holdBatch":      {hour},
		"openLines":      {id},
		"lines":          {id, 5000, 500},
		"knownIDs":       {id, customs},
		"lockOpenLines":  {id, 100},
		"lineResults":    {ids, ids[0], ids[len(ids)-1]},
		"updateLines":    {id, []int{1, 2, 3}, ids[:3], []int{0, 0, 0}, []string{`\x`, `\x`, `\x`}},
		"expireFiles":    {100},
		"giveUpUploads":  {100, hour},
		"lockGone":       {},
		"lockEndedBatch": {hour},
		"removeLines":    {id, 100},
		"removeChunks":   {ids[0], 11},
		"listFiles":      {"t1", "", fmt.Sprintf("%032s", strings.Repeat("f", 32)), 21},
		"file":           {ids[0], "t1"},
		"deleteFile":     {ids[0], "t1"},
		"batch":          {id, "t1"},
		"cancelBatch":    {id, "t1"},
	}
	from := 1
	small := map[string]int{}
	for _, n := range []int{10_000, 100_000} {
		if _, err := conn.PgConn().Exec(t.Context(), fmt.Sprintf(fillBatches, from, n)).ReadAll(); err != nil {
			t.Fatal(err)
		}
		for _, analyzed := range []bool{false, true} {
			if analyzed {
				exec(t, conn, `analyze`)
			}
			for name, args := range statements {
				guarded := name == "openLines" || name == "lockOpenLines"
				p := explain(t, conn, guarded, postgres.Statements[name], args)
				if whole := wholeTable.FindString(string(p)); whole != "" && n > 10_000 {
					t.Errorf("%s of %d, analyzed %t: %s\n%s", name, n, analyzed, whole, p)
				}
				switch got := p.buffers(); {
				case name == "batch": // it counts
				case from == 1:
					small[name] = max(small[name], got)
				case got > 2*small[name]+400: // some look up 200 rows by trees that grow
					t.Errorf("%s, analyzed %t: %d buffers of %d, %d of a tenth\n%s", name, analyzed, got, n, small[name], p)
				}
			}
		}
		from = n + 1
	}
}
