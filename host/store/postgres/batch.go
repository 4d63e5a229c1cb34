package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// insertBatch locks the input, so that it is not deleted at the same time.
const insertBatch = `
with f as materialized (
	select id, bytes from file
	where id = $5 and tenant = $2 and state = 1 and (expires is null or expires > now()) for key share)
insert into batch (id, tenant, endpoint, completion_window, input, input_bytes, parent, metadata, output_keep, expires)
select $1, $2, $3, $4, f.id, f.bytes, nullif($6::uuid, '` + noID + `'::uuid), $7, $8, now() + $9 * interval '1 microsecond' from f`

// CreateBatch stores a batch whose input is there.
func (d *driver) CreateBatch(ctx context.Context, b store.Batch, window time.Duration) (store.Batch, error) {
	err := d.call(ctx, "create batch", func(ctx context.Context) error {
		tag, err := d.pool.Exec(ctx, insertBatch, uuid(b.ID), b.Tenant, b.Endpoint, b.Window, uuid(b.Input), uuid(b.Parent),
			b.Metadata, micros(b.OutputKeep), micros(window))
		if err == nil && tag.RowsAffected() == 0 {
			err = noFile(b.Input)
		}
		return err
	})
	if err != nil {
		return store.Batch{}, err
	}
	return d.Batch(ctx, b.Tenant, b.ID)
}

const (
	// batchColumns are followed by how many lines completed and failed.
	batchColumns = `
select id, tenant, endpoint, completion_window, input, input_bytes, coalesce(parent, '` + noID + `'::uuid), metadata, state, version,
	created, expires, started, finalized, canceling, ended, (extract(epoch from expires - now()) * 1000000)::bigint,
	coalesce(output, '` + noID + `'::uuid), coalesce(errors, '` + noID + `'::uuid), output_keep, line, pos, total,
`
	batchRest = `	refused, faults, usage, settled
from batch where `

	// selectBatch counts by the index of batch and state what a batch that has not
	// ended comes to so far.
	selectBatch = batchColumns + `	case when state in (1, 2, 3)
		then (select count(*) from request r where r.batch is not null and r.batch = batch.id and r.state = 10)
		else completed end,
	case when state in (1, 2, 3)
		then (select count(*) from request r where r.batch is not null and r.batch = batch.id and r.state in (11, 12, 13)) + refused
		else failed end,
` + batchRest

	// selectUncounted looks at the batch's row alone: who goes on with a batch need not
	// know the counts.
	selectUncounted = batchColumns + `	completed, failed,
` + batchRest
)

func scanBatch(scan scan) (b store.Batch, err error) {
	var started, finalized, canceling, ended *time.Time
	var left, keep int64
	err = scan((*[16]byte)(&b.ID), &b.Tenant, &b.Endpoint, &b.Window, (*[16]byte)(&b.Input), &b.InputBytes, (*[16]byte)(&b.Parent), &b.Metadata,
		(*int16)(&b.State), &b.Version, &b.Created, &b.Expires, &started, &finalized, &canceling, &ended, &left,
		(*[16]byte)(&b.Output), (*[16]byte)(&b.Errors), &keep, &b.Line, &b.Offset, &b.Total,
		&b.Completed, &b.Failed, &b.Refused, &b.Faults, &b.Usage, &b.Settled)
	b.Created, b.Expires = b.Created.UTC(), b.Expires.UTC()
	b.Started, b.Finalized, b.Canceling, b.Ended = at(started), at(finalized), at(canceling), at(ended)
	b.Left, b.OutputKeep = time.Duration(left)*time.Microsecond, time.Duration(keep)*time.Microsecond
	return b, err
}

func noBatch(id queue.ID) error { return fmt.Errorf("batch %s: %w", id, queue.ErrNotFound) }

// Batch returns one batch.
func (d *driver) Batch(ctx context.Context, tenant string, id queue.ID) (store.Batch, error) {
	return d.batchBy(ctx, selectBatch, tenant, id)
}

func (d *driver) batchBy(ctx context.Context, query, tenant string, id queue.ID) (b store.Batch, err error) {
	err = d.call(ctx, "batch", func(ctx context.Context) error {
		b, err = scanBatch(d.pool.QueryRow(ctx, query+`id = $1 and ($2 = '' or tenant = $2)`, uuid(id), tenant).Scan)
		if errors.Is(err, pgx.ErrNoRows) {
			return noBatch(id)
		}
		return err
	})
	return b, err
}

// ListBatches returns a page of a tenant's batches.
func (d *driver) ListBatches(ctx context.Context, tenant string, p store.BatchPage) (list []store.Batch, more bool, err error) {
	err = d.call(ctx, "list batches", func(ctx context.Context) error {
		before := last
		if p.After != (queue.ID{}) {
			before = p.After
			known := false
			if err := d.pool.QueryRow(ctx, `select exists (select from batch where id = $1 and tenant = $2)`, uuid(before), tenant).Scan(&known); err != nil {
				return err
			}
			if !known {
				return noBatch(before)
			}
		}
		rows, err := d.pool.Query(ctx, selectBatch+`tenant = $1 and id < $2 order by id desc limit $3`, tenant, uuid(before), p.Limit+1)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
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
update batch set state = 3, canceling = now(), due = now(), version = version + 1
where id = $1 and tenant = $2 and state in (0, 1)`

// CancelBatch makes a batch BatchCanceling that has not all ended.
func (d *driver) CancelBatch(ctx context.Context, tenant string, id queue.ID) (store.Batch, error) {
	err := d.call(ctx, "cancel batch", func(ctx context.Context) error {
		_, err := d.pool.Exec(ctx, cancelBatch, uuid(id), tenant)
		return err
	})
	if err != nil {
		return store.Batch{}, err
	}
	return d.Batch(ctx, tenant, id)
}

// holdBatch passes over a batch that another host holds at this moment.
const holdBatch = `
update batch set due = now() + $1 * interval '1 microsecond'
where id = (select id from batch where due <= now() order by due limit 1 for no key update skip locked)
returning id`

// HoldBatch returns the batch that has been due the longest.
func (d *driver) HoldBatch(ctx context.Context, hold time.Duration) (b store.Batch, ok bool, err error) {
	var id queue.ID
	err = d.call(ctx, "hold batch", func(ctx context.Context) error {
		err := d.pool.QueryRow(ctx, holdBatch, micros(hold)).Scan((*[16]byte)(&id))
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		ok = err == nil
		return err
	})
	if err != nil || !ok {
		return b, false, err
	}
	b, err = d.batchBy(ctx, selectUncounted, "", id)
	return b, err == nil, err
}
