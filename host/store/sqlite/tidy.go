package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/casemate/casemate/host/store"
)

// perChunk is how many rows a chunk of a file counts as.
const perChunk = 10

const (
	expireFiles = `
update file set state = 2 where id in (
	select id from file where state = 1 and expires <= ?1 order by expires limit ?2)`

	giveUpUploads = `
update file set state = 2 where id in (
	select id from file where state = 0 and touched <= ?1 order by touched limit ?2)`

	// selectGone passes over the input of batches that have not read all of it.
	selectGone = `
select f.id from file f
where f.state = 2 and not exists (select 1 from batch b where b.input = f.id and b.state in (0, 1))
limit 1`

	removeChunks = `
delete from file_chunk where file = ?1 and n in (select n from file_chunk where file = ?1 order by n limit ?2)`
)

// Tidy removes what nobody can reach any more.
func (d *driver) Tidy(ctx context.Context, r store.TidyRequest) (done store.Tidied, err error) {
	r = r.WithDefaults()
	for _, part := range []func(t *tx) error{
		func(t *tx) error { return t.expireFiles(r, &done) },
		func(t *tx) error { return t.removeFile(r.Limit/perChunk+1, &done) },
		func(t *tx) error { return t.removeBatch(r, &done) },
	} {
		if err := d.update(ctx, "tidy", part); err != nil {
			return done, err
		}
	}
	return done, nil
}

func (t *tx) expireFiles(r store.TidyRequest, done *store.Tidied) error {
	due, err := t.exec(expireFiles, t.now, r.Limit)
	if err != nil {
		return err
	}
	late, err := t.exec(giveUpUploads, t.now-ceilMillis(r.Unfinished), r.Limit)
	done.Expired += due + late
	done.More = done.More || due+late > 0
	return err
}

// removeFile removes some of the content of one file that is Gone, and the file
// with the last of it.
func (t *tx) removeFile(chunks int, done *store.Tidied) error {
	var id idColumn
	err := t.one(selectGone, nil, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	done.More = true
	n, err := t.exec(removeChunks, id[:], chunks)
	if err != nil || n == chunks {
		return err
	}
	done.Files++
	_, err = t.exec(`delete from file where id = ?`, id[:])
	return err
}

const (
	// selectEndedBatch passes over a batch that a retry may still take lines from:
	// that has the same input.
	selectEndedBatch = `
select id from batch where settled = 1 and ended <= ?
	and not exists (select 1 from batch b where b.input = batch.input and b.state in (0, 1))
order by ended limit 1`

	removeLines = `
delete from batch_line where batch = ?1 and line in (select line from batch_line where batch = ?1 order by line limit ?2)`
)

func (t *tx) removeBatch(r store.TidyRequest, done *store.Tidied) error {
	var id idColumn
	err := t.one(selectEndedBatch, []any{t.now - ceilMillis(r.KeepBatches)}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	done.More = true
	n, err := t.exec(removeLines, id[:], r.Limit)
	if err != nil || n == r.Limit {
		return err
	}
	done.Batches++
	_, err = t.exec(`delete from batch where id = ?`, id[:])
	return err
}
