package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const insertBatch = `
insert into batch (id, tenant, endpoint, completion_window, input, input_bytes, parent, metadata, output_keep, due, created, expires)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?10, ?10, ?11)`

const selectInput = `
select bytes from file where id = ?1 and tenant = ?2 and state = 1 and (expires is null or expires > ?3)`

// CreateBatch stores a batch whose input is there.
func (d *driver) CreateBatch(ctx context.Context, b store.Batch, window time.Duration) (made store.Batch, err error) {
	err = d.update(ctx, "create batch", func(t *tx) error {
		var bytes int64
		if err := t.one(selectInput, []any{b.Input[:], b.Tenant, t.now}, &bytes); err != nil {
			return noFile(b.Input, err)
		}
		_, err := t.exec(insertBatch, b.ID[:], b.Tenant, b.Endpoint, b.Window, b.Input[:], bytes, idOrNull(b.Parent), b.Metadata,
			b.OutputKeep.Milliseconds(), t.now, t.now+ceilMillis(window))
		if err != nil {
			return err
		}
		made, err = batch(t, t.now, b.Tenant, b.ID)
		return err
	})
	return made, err
}

const (
	// batchColumns are followed by how many lines completed and failed. ?1 is the
	// clock.
	batchColumns = `
select id, tenant, endpoint, completion_window, input, input_bytes, coalesce(parent, zeroblob(16)), metadata, state, version,
	created, expires, started, finalized, canceling, ended, expires - ?1,
	coalesce(output, zeroblob(16)), coalesce(errors, zeroblob(16)), output_keep, line, pos, total,
`
	batchRest = `	refused, faults, usage, settled
from batch where `

	// selectBatch counts by the index of batch and state what a batch that has not
	// ended comes to so far.
	selectBatch = batchColumns + `	iif(state in (1, 2, 3), (select count(*) from request r where r.batch is not null and r.batch = batch.id and r.state = 10), completed),
	iif(state in (1, 2, 3), (select count(*) from request r where r.batch is not null and r.batch = batch.id and r.state in (11, 12, 13)) + refused, failed),
` + batchRest

	// selectUncounted looks at the batch's row alone: who goes on with a batch need not
	// know the counts.
	selectUncounted = batchColumns + `	completed, failed,
` + batchRest
)

func scanBatch(scan scan) (b store.Batch, err error) {
	var created, expires, started, finalized, canceling, ended sql.NullInt64
	var left, keep int64
	err = scan((*idColumn)(&b.ID), &b.Tenant, &b.Endpoint, &b.Window, (*idColumn)(&b.Input), &b.InputBytes, (*idColumn)(&b.Parent), &b.Metadata,
		&b.State, &b.Version, &created, &expires, &started, &finalized, &canceling, &ended, &left,
		(*idColumn)(&b.Output), (*idColumn)(&b.Errors), &keep, &b.Line, &b.Offset, &b.Total,
		&b.Completed, &b.Failed, &b.Refused, &b.Faults, &b.Usage, &b.Settled)
	b.Created, b.Expires, b.Started, b.Finalized, b.Canceling, b.Ended = at(created), at(expires), at(started), at(finalized), at(canceling), at(ended)
	b.Left, b.OutputKeep = time.Duration(left)*time.Millisecond, time.Duration(keep)*time.Millisecond
	return b, err
}

func batch(q reader, now int64, tenant string, id queue.ID) (store.Batch, error) {
	return batchBy(q, selectBatch, now, tenant, id)
}

func batchBy(q reader, query string, now int64, tenant string, id queue.ID) (store.Batch, error) {
	b, err := scanBatch(func(dest ...any) error {
		return q.one(query+`id = ?2 and (?3 = '' or tenant = ?3)`, []any{now, id[:], tenant}, dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = noBatch(id)
	}
	return b, err
}

func noBatch(id queue.ID) error { return fmt.Errorf("batch %s: %w", id, queue.ErrNotFound) }

// Batch returns one batch.
func (d *driver) Batch(ctx context.Context, tenant string, id queue.ID) (b store.Batch, err error) {
	err = d.view(ctx, "batch", func(s *snapshot) error {
		now, err := s.now()
		if err == nil {
			b, err = batch(s, now, tenant, id)
		}
		return err
	})
	return b, err
}

// ListBatches returns a page of a tenant's batches.
func (d *driver) ListBatches(ctx context.Context, tenant string, p store.BatchPage) (list []store.Batch, more bool, err error) {
	err = d.view(ctx, "list batches", func(s *snapshot) error {
		now, err := s.now()
		if err != nil {
			return err
		}
		before := lastID
		if p.After != (queue.ID{}) {
			var one int
			before = p.After
			if err := s.one(`select 1 from batch where id = ? and tenant = ?`, []any{before[:], tenant}, &one); err != nil {
				if errors.Is(err, sql.ErrNoRows) {
					err = noBatch(before)
				}
				return err
			}
		}
		return s.each(selectBatch+`tenant = ?2 and id < ?3 order by id desc limit ?4`, []any{now, tenant, before[:], p.Limit + 1}, func(scan scan) error {
			b, err := scanBatch(scan)
			list = append(list, b)
			return err
		})
	})
	if err != nil {
		return nil, false, err
	}
	more = len(list) > p.Limit
	return list[:min(len(list), p.Limit)], more, nil
}

const cancelBatch = `
update batch set state = 3, canceling = ?1, due = ?1, version = version + 1
where id = ?2 and tenant = ?3 and state in (0, 1)`

// CancelBatch makes a batch BatchCanceling that has not all ended.
func (d *driver) CancelBatch(ctx context.Context, tenant string, id queue.ID) (b store.Batch, err error) {
	err = d.update(ctx, "cancel batch", func(t *tx) (err error) {
		if _, err := t.exec(cancelBatch, t.now, id[:], tenant); err != nil {
			return err
		}
		b, err = batch(t, t.now, tenant, id)
		return err
	})
	return b, err
}

const holdBatch = `
update batch set due = ?2
where id = (select id from batch where due <= ?1 order by due limit 1)
returning id`

// HoldBatch returns the batch that has been due the longest. That there is none
// is found out beside those who write.
func (d *driver) HoldBatch(ctx context.Context, hold time.Duration) (b store.Batch, ok bool, err error) {
	err = d.view(ctx, "hold batch", func(s *snapshot) error {
		return s.one(`select exists (select 1 from batch where due <= `+clock+`)`, nil, &ok)
	})
	if err != nil || !ok {
		return b, false, err
	}
	err = d.update(ctx, "hold batch", func(t *tx) error {
		var id idColumn
		err := t.one(holdBatch, []any{t.now, t.now + ceilMillis(hold)}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			ok = false
			return nil
		}
		if err == nil {
			b, err = batchBy(t, selectUncounted, t.now, "", queue.ID(id))
		}
		return err
	})
	return b, ok && err == nil, err
}
