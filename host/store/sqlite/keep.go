package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const (
	// briefly bounds a transaction that removes: others wait for it.
	briefly = 10 * time.Millisecond
	// removing bounds what one sweep removes; the next goes on.
	removing = 500 * time.Millisecond
)

const removeIdempotency = `
delete from idempotency where (tenant, key) in (
	select tenant, key from idempotency where created < ?1 order by created limit ?2)`

// retain removes what was kept long enough, in short transactions with those of
// others between them. What is freed in the file is written to again.
func (d *driver) retain(ctx context.Context, r store.SweepRequest, sum *int) error {
	err := d.update(ctx, "remove keys", func(t *tx) error {
		_, err := t.exec(removeIdempotency, t.now-store.KeepKeys.Milliseconds(), r.Limit)
		return err
	})
	if r.Keep <= 0 {
		return err
	}
	begun := time.Now()
	for more := true; more && err == nil && time.Since(begun) < removing; {
		err = d.update(ctx, "remove", func(t *tx) error {
			n, rest, err := t.removeEnded(t.now-ceilMillis(r.Keep), r.Limit)
			*sum += n
			more = rest
			return err
		})
	}
	if err != nil {
		return err
	}
	return d.giveBack(ctx)
}

const (
	// giveBackPages is how many free pages of the file are given back at once,
	// which takes a millisecond or a few.
	giveBackPages = 256
	// spareFree is how many are kept.
	spareFree = 16384
)

// selectFree answers 0 for a file that was made before pages could be given back.
const selectFree = `
select iif(a.auto_vacuum = 2, f.freelist_count, 0), p.page_count
from pragma_auto_vacuum() a, pragma_freelist_count() f, pragma_page_count() p`

// giveBack makes a file smaller of which more than half is free: some while
// there was more in it than there is now. What is free otherwise is soon used.
func (d *driver) giveBack(ctx context.Context) error {
	var free, all int
	err := d.view(ctx, "give back", func(s *snapshot) error { return s.one(selectFree, nil, &free, &all) })
	if err != nil || free < spareFree || free < all/2 {
		return err
	}
	return d.update(ctx, "give back", func(t *tx) error {
		return t.each(fmt.Sprintf("pragma incremental_vacuum(%d)", giveBackPages), nil, func(scan) error { return nil })
	})
}

// selectEnded passes over the lines of batches that have not ended: their results
// are not in the batch's files yet.
const selectEnded = `
select id from request
where finished < ?1 and worker is null
	and (batch is null or not exists (select 1 from batch b where b.id = request.batch and b.due is not null))
order by finished
limit ?2`

// removeEnded removes requests that ended before a time until there are none,
// or there were enough, or it took long enough; then there may be more.
func (t *tx) removeEnded(before int64, limit int) (n int, more bool, err error) {
	var ids []queue.ID
	err = t.each(selectEnded, []any{before, limit}, func(scan scan) error {
		var id idColumn
		err := scan(&id)
		ids = append(ids, queue.ID(id))
		return err
	})
	begun := time.Now()
	for _, id := range ids {
		if err != nil || time.Since(begun) > briefly {
			return n, true, err
		}
		err = t.remove(id)
		n++
	}
	return n, len(ids) == limit, err
}

// remove deletes a request and all that belongs to it but its usage.
func (t *tx) remove(id queue.ID) error {
	for _, q := range []string{
		`delete from body where request = ?`,
		`delete from result where request = ?`,
		`delete from step where request = ?`,
		`delete from event where request = ?`,
		`delete from decision where request = ?`,
		`delete from request where id = ?`,
	} {
		if _, err := t.exec(q, id[:]); err != nil {
			return err
		}
	}
	return nil
}
