package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/store"
)

// perChunk is how many rows a chunk of a file counts as.
const perChunk = 10

// A file is updated by its id: no index of its state is to be looked through.
const (
	expireFiles = `
update file set state = 2 where state + 0 = 1 and id = any(array(
	select id from file where state = 1 and expires <= now()
	order by expires limit $1 for no key update skip locked))`

	giveUpUploads = `
update file set state = 2 where state + 0 = 0 and id = any(array(
	select id from file where state = 0 and touched <= now() - $2 * interval '1 microsecond'
	order by touched limit $1 for no key update skip locked))`

	// lockGone passes over the input of batches that have not read all of it.
	lockGone = `
select f.id from file f
where f.state = 2 and not exists (select from batch b where b.input = f.id and b.state in (0, 1))
limit 1 for update of f skip locked`

	removeChunks = `
delete from file_chunk where file = $1 and n = any(array(select n from file_chunk where file = $1 order by n limit $2))`

	// lockEndedBatch passes over a batch that a retry may still take lines from: that
	// has the same input.
	lockEndedBatch = `
select id from batch where settled and ended <= now() - $1 * interval '1 microsecond'
	and not exists (select from batch b where b.input = batch.input and b.state in (0, 1))
order by ended limit 1 for update skip locked`

	removeLines = `
delete from batch_line where batch = $1 and line = any(array(select line from batch_line where batch = $1 order by line limit $2))`
)

// Tidy removes what nobody can reach any more. It passes over what others have
// locked.
func (d *driver) Tidy(ctx context.Context, r store.TidyRequest) (done store.Tidied, err error) {
	r = r.WithDefaults()
	err = d.call(ctx, "tidy", func(ctx context.Context) error {
		due, err := d.pool.Exec(ctx, expireFiles, r.Limit)
		if err != nil {
			return err
		}
		late, err := d.pool.Exec(ctx, giveUpUploads, r.Limit, micros(r.Unfinished))
		if err != nil {
			return err
		}
		done.Expired = int(due.RowsAffected() + late.RowsAffected())
		var files, batches gone
		err = errors.Join(
			d.removeSome(ctx, &files, r.Limit/perChunk+1, removeChunks, `delete from file where id = $1`, lockGone),
			d.removeSome(ctx, &batches, r.Limit, removeLines, `delete from batch where id = $1`, lockEndedBatch, micros(r.KeepBatches)),
		)
		done.Files, done.Batches = files.whole, batches.whole
		done.More = done.Expired > 0 || files.any || batches.any
		return err
	})
	return done, err
}

// gone is what removeSome did.
type gone struct {
	any   bool
	whole int
}

// removeSome removes at most limit parts of one thing, and the thing with the
// last of them.
func (d *driver) removeSome(ctx context.Context, done *gone, limit int, parts, whole, lock string, args ...any) error {
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		var id pgtype.UUID
		err := t.QueryRow(ctx, lock, args...).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		done.any = true
		var tag pgconn.CommandTag
		if tag, err = t.Exec(ctx, parts, id, limit); err != nil || tag.RowsAffected() == int64(limit) {
			return err
		}
		done.whole++
		_, err = t.Exec(ctx, whole, id)
		return err
	})
}
