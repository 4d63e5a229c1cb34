package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// stepBatch fails the transaction by a division by zero unless the batch is of
// the version.
const stepBatch = `
with u as (
update batch set
	state = $3::smallint, version = version + 1, settled = $4,
	due = case when not $4 then now() + $5 * interval '1 microsecond' end,
	started = case when $3::smallint = 1 then coalesce(started, now()) else started end,
	finalized = case when $3::smallint = 2 then coalesce(finalized, now()) else finalized end,
	ended = case when $3::smallint >= 10 then coalesce(ended, now()) else ended end,
	output = nullif($6::uuid, '` + noID + `'::uuid), errors = nullif($7::uuid, '` + noID + `'::uuid),
	line = $8, pos = $9, total = $10, completed = $11, failed = $12, refused = $13, faults = $14, usage = $15
where id = $1 and version = $2
returning 1)
select 1 / count(*) from u`

// StepBatch makes a step, or nothing. The batch's row is locked after those of
// requests and lanes, so nobody waits in a circle with who writes these.
func (d *driver) StepBatch(ctx context.Context, s store.BatchStep) error {
	p := newPlan(s.Requests)
	p.also = func(b *pgx.Batch) { queueStep(b, &s) }
	stale := false
	err := d.call(ctx, "step batch", func(ctx context.Context) error {
		if err := d.laneIDs(ctx, d.pool, p.laneOf); err != nil {
			return err
		}
		conn, err := d.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		if _, err = p.lock(ctx, conn); err == nil {
			if err = errors.Join(p.decide(s.Requests)...); err == nil {
				err = p.commit(ctx, conn)
			}
		}
		if err != nil && conn.Conn().PgConn().TxStatus() != 'I' {
			_, _ = conn.Exec(ctx, "rollback") // if it fails, the pool drops the connection
		}
		var answer *pgconn.PgError
		stale = errors.As(err, &answer) && answer.Code == "22012" // division_by_zero
		return err
	})
	switch {
	case stale:
		return fmt.Errorf("postgres: batch %s: it is not of version %d any more: %w", s.Batch.ID, s.Batch.Version, store.ErrConflict)
	case err != nil:
		return err
	case len(p.rows.woken) > 0:
		d.hints.ready()
	}
	return nil
}

const (
	insertLines = `
insert into batch_line (batch, line, custom_id, start, size, forget)
select $1, * from unnest($2::int[], $3::text[], $4::bigint[], $5::int[], $6::bool[])`

	updateLines = `
update batch_line l set request = nullif(x.request, '` + noID + `'::uuid), status = x.status, refusal = x.refusal
from unnest($2::int[], $3::uuid[], $4::int[], $5::bytea[]) as x(line, request, status, refusal)
where l.batch = $1 and l.line = x.line`

	upsertChunk = `
insert into file_chunk (file, n, data) values ($1, $2, $3)
on conflict (file, n) do update set data = excluded.data`

	// endGrown leaves no file of nothing.
	endGrown = `
update file set state = case when $2 > 0 then 1 else 2 end, bytes = $2, expires = now() + nullif($3::bigint, 0) * interval '1 microsecond'
where id = $1 and state = 3`
)

// queueStep asks for the version first: what else is refused then, such as a line
// that is there, is not told.
func queueStep(b *pgx.Batch, s *store.BatchStep) {
	id, t := uuid(s.Batch.ID), &s.Batch
	b.Queue(stepBatch, id, t.Version, int16(t.State), t.Settled, micros(s.Again), uuid(t.Output), uuid(t.Errors),
		t.Line, t.Offset, t.Total, t.Completed, t.Failed, t.Refused, t.Faults, t.Usage)
	if n := len(s.Lines); n > 0 {
		lines, customs, starts := make([]int32, n), make([]string, n), make([]int64, n)
		sizes, forgets := make([]int32, n), make([]bool, n)
		for i, l := range s.Lines {
			lines[i], customs[i], starts[i], sizes[i], forgets[i] = int32(l.Line), l.CustomID, l.Offset, int32(l.Size), l.Forget
		}
		b.Queue(insertLines, id, lines, customs, starts, sizes, forgets)
	}
	if n := len(s.Made); n > 0 {
		lines, ids, statuses, refusals := make([]int32, n), make([]pgtype.UUID, n), make([]int32, n), make([][]byte, n)
		for i, l := range s.Made {
			lines[i], ids[i], statuses[i], refusals[i] = int32(l.Line), uuid(l.Request), int32(l.Status), l.Refusal
		}
		b.Queue(updateLines, id, lines, ids, statuses, refusals)
	}
	for _, f := range s.Grow {
		f.State = store.Growing
		b.Queue(insertFile, fileArgs(f)...)
	}
	for _, c := range s.Chunks {
		b.Queue(upsertChunk, uuid(c.File), c.N, c.Data)
	}
	for _, g := range s.Grown {
		b.Queue(endGrown, uuid(g.ID), g.Bytes, micros(g.ExpiresIn))
	}
}

// selectOpen asks each state for one row: a range of them would be read through. It
// runs guarded: statistics of when most were open would have it look for one in
// the whole table.
const selectOpen = `
select exists (select from request where batch is not null and batch = $1 and state = 0)
	or exists (select from request where batch is not null and batch = $1 and state = 1)
	or exists (select from request where batch is not null and batch = $1 and state = 2)
	or exists (select from request where batch is not null and batch = $1 and state = 3)`

// OpenLines reports whether a request of the batch is in no final state.
func (d *driver) OpenLines(ctx context.Context, id queue.ID) (open bool, err error) {
	err = d.call(ctx, "open lines", func(ctx context.Context) error {
		var b pgx.Batch // one transaction, since it goes at once
		b.Queue(guardLong)
		b.Queue(selectOpen, uuid(id)).QueryRow(func(row pgx.Row) error { return row.Scan(&open) })
		return d.pool.SendBatch(ctx, &b).Close()
	})
	return open, err
}

// lockOpenLines locks in the order of ids, as all do who write requests, and passes
// over those that somebody writes at this moment.
const lockOpenLines = `
select id from request where id = any(array(
	select id from request where batch is not null and batch = $1 and state in (0, 1, 2, 3) limit $2))
order by id for no key update skip locked`

const cancelOpen = `
with u as (
	update request q set state = 12, finished = now(), not_before = null, class = 'canceled', code = '', secret = null
	where q.id = any($1::uuid[]) and q.state + 0 in (0, 1, 2, 3) and not q.deleted
	returning q.id, q.store, true as ended, q.worker), ` + forgetEnded + `
select worker from u`

// CancelLines cancels requests of the batch, in one transaction. That they are
// locked by a statement of its own makes the next one see all that was written
// before.
func (d *driver) CancelLines(ctx context.Context, id queue.ID, limit int) (n int, err error) {
	var workers []*int64
	err = d.call(ctx, "cancel lines", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
			if _, err := t.Exec(ctx, guardLong); err != nil {
				return err
			}
			rows, err := t.Query(ctx, lockOpenLines, uuid(id), limit)
			if err != nil {
				return err
			}
			ids, err := pgx.CollectRows(rows, pgx.RowTo[pgtype.UUID])
			if err != nil || len(ids) == 0 {
				return err
			}
			if rows, err = t.Query(ctx, cancelOpen, ids); err != nil {
				return err
			}
			workers, err = pgx.CollectRows(rows, pgx.RowTo[*int64])
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	for _, w := range workers {
		if w != nil {
			d.hints.canceled(*w)
		}
	}
	return len(workers), nil
}

const selectKnown = `select custom_id from batch_line where batch = $1 and custom_id = any($2::text[])`

// KnownIDs returns the custom ids that are taken.
func (d *driver) KnownIDs(ctx context.Context, id queue.ID, custom []string) (known []string, err error) {
	err = d.call(ctx, "known ids", func(ctx context.Context) error {
		rows, err := d.pool.Query(ctx, selectKnown, uuid(id), custom)
		if err != nil {
			return err
		}
		known, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return known, err
}
