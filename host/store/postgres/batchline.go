package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// selectLines takes its lines before it looks their requests up: those of all the
// lines that follow would be too many.
const selectLines = `
with l as materialized (
	select * from batch_line where batch = $1 and line > $2 order by line limit $3)
select l.line, l.custom_id, l.start, l.size, l.forget, coalesce(l.request, '` + noID + `'::uuid), l.status, l.refusal,
	l.request is not null and r.id is null, coalesce(r.state, 0::smallint), coalesce(r.class, ''), coalesce(r.code, ''),
	coalesce((select octet_length(data) from result where request = r.id), 0)::bigint, coalesce(r.worker, 0)
from l left join request r on r.id = l.request and not r.deleted
order by l.line`

// lines returns lines of a batch, and the workers that hold their requests.
func lines(ctx context.Context, db querier, id queue.ID, after, limit int) (list []store.Line, workers []int64, err error) {
	rows, err := db.Query(ctx, selectLines, uuid(id), after, limit)
	if err != nil {
		return nil, nil, err
	}
	err = drain(rows, func(scan scan) error {
		var l store.Line
		var w int64
		err := scan(&l.Line, &l.CustomID, &l.Offset, &l.Size, &l.Forget, (*[16]byte)(&l.Request), &l.Status, &l.Refusal,
			&l.Lost, (*int16)(&l.State), (*string)(&l.Class), &l.Code, &l.Result, &w)
		list, workers = append(list, l), append(workers, w)
		return err
	})
	return list, workers, err
}

// Lines returns lines of a batch.
func (d *driver) Lines(ctx context.Context, id queue.ID, after, limit int) (list []store.Line, err error) {
	err = d.call(ctx, "lines", func(ctx context.Context) error {
		list, _, err = lines(ctx, d.pool, id, after, limit)
		return err
	})
	return list, err
}

const selectResults = `
select request, status, content_type, data from result where request = any($1::uuid[]) and request between $2 and $3`

// LineResults returns results of requests.
func (d *driver) LineResults(ctx context.Context, ids []queue.ID) (map[queue.ID]store.Result, error) {
	list := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		list[i] = uuid(id)
	}
	results := make(map[queue.ID]store.Result, len(ids))
	err := d.call(ctx, "line results", func(ctx context.Context) error {
		rows, err := d.pool.Query(ctx, selectResults, ranged(list)...)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
			var id queue.ID
			var r store.Result
			err := scan((*[16]byte)(&id), &r.Status, &r.ContentType, &r.Body)
			results[id] = r
			return err
		})
	})
	return results, err
}

const (
	removeSettled = `delete from batch_line where batch = $1 and line = any($2::int[])`
	lockSettled   = `select from request where id = any($1::uuid[]) order by id for update`
)

// SettleLines forgets the lines that succeeded, and removes the requests that
// are to be forgotten, in one transaction. One that its worker still holds is
// hidden until it is let go of.
func (d *driver) SettleLines(ctx context.Context, id queue.ID, after, limit int) (last int, err error) {
	err = d.call(ctx, "settle lines", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
			last = 0
			all, _, err := lines(ctx, t, id, after, limit)
			if err != nil || len(all) == 0 {
				return err
			}
			last = all[len(all)-1].Line
			var b pgx.Batch
			if err := settle(ctx, t, &b, id, all, after); err != nil {
				return err
			}
			return t.SendBatch(ctx, &b).Close()
		})
	})
	return last, err
}

// settle queues what SettleLines does to lines. What requests are held by is
// read again once they are locked.
func settle(ctx context.Context, t pgx.Tx, b *pgx.Batch, id queue.ID, all []store.Line, after int) error {
	var forget []pgtype.UUID
	for _, l := range all {
		if l.Forget && l.Request != (queue.ID{}) && !l.Lost {
			forget = append(forget, uuid(l.Request))
		}
	}
	if len(forget) > 0 {
		if _, err := t.Exec(ctx, lockSettled, forget); err != nil {
			return err
		}
	}
	again, workers, err := lines(ctx, t, id, after, len(all))
	if err != nil {
		return err
	}
	var done []int32
	var free, held []pgtype.UUID
	for i, l := range again {
		if l.State == queue.Completed {
			done = append(done, int32(l.Line))
		}
		switch {
		case !l.Forget || l.Lost || l.Request == (queue.ID{}):
		case workers[i] != 0:
			held = append(held, uuid(l.Request))
		default:
			free = append(free, uuid(l.Request))
		}
	}
	if gone := append(free[:len(free):len(free)], held...); len(gone) > 0 {
		for _, q := range []string{forgetBodies, forgetSteps, forgetEvents, removeResults, removeDecisions} {
			b.Queue(q, ranged(gone)...)
		}
	}
	b.Queue(removeRequest, free)
	b.Queue(hideRequest, held)
	b.Queue(removeSettled, uuid(id), done)
	return nil
}
