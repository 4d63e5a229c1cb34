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

const insertFile = `
insert into file (id, tenant, name, purpose, state, batch) values ($1, $2, $3, $4, $5, nullif($6, '` + noID + `'::uuid))`

// noID is the zero id.
const noID = `00000000-0000-0000-0000-000000000000`

func fileArgs(f store.File) []any {
	return []any{uuid(f.ID), f.Tenant, f.Name, f.Purpose, int16(f.State), uuid(f.Batch)}
}

// CreateFile stores a file without content.
func (d *driver) CreateFile(ctx context.Context, f store.File) error {
	f.State = store.Uploading
	return d.call(ctx, "create file", func(ctx context.Context) error {
		_, err := d.pool.Exec(ctx, insertFile, fileArgs(f)...)
		return err
	})
}

// putChunk locks the file's row, so that no chunk comes after its end.
const putChunk = `
with f as materialized (
	update file set touched = now() where id = $1 and state = 0 returning id)
insert into file_chunk (file, n, data) select id, $2, $3 from f
on conflict (file, n) do update set data = excluded.data`

// PutChunk stores the n-th chunk of a file that is Uploading.
func (d *driver) PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error {
	return d.call(ctx, "put chunk", func(ctx context.Context) error {
		tag, err := d.pool.Exec(ctx, putChunk, uuid(id), n, data)
		if err == nil && tag.RowsAffected() == 0 {
			err = noFile(id)
		}
		return err
	})
}

func noFile(id queue.ID) error { return fmt.Errorf("file %s: %w", id, queue.ErrNotFound) }

const fileColumns = `id, tenant, name, purpose, bytes, state, coalesce(batch, '` + noID + `'::uuid), created, expires`

func scanFile(scan scan) (f store.File, err error) {
	var expires *time.Time
	err = scan((*[16]byte)(&f.ID), &f.Tenant, &f.Name, &f.Purpose, &f.Bytes, (*int16)(&f.State), (*[16]byte)(&f.Batch), &f.Created, &expires)
	f.Created, f.Expires = f.Created.UTC(), at(expires)
	return f, err
}

// oneFile runs a statement that returns at most one file.
func (d *driver) oneFile(ctx context.Context, what string, id queue.ID, query string, args ...any) (f store.File, err error) {
	err = d.call(ctx, what, func(ctx context.Context) error {
		f, err = scanFile(d.pool.QueryRow(ctx, query, args...).Scan)
		if errors.Is(err, pgx.ErrNoRows) {
			return noFile(id)
		}
		return err
	})
	return f, err
}

const finishFile = `
update file set state = 1, purpose = $2, bytes = $3, expires = now() + nullif($4::bigint, 0) * interval '1 microsecond'
where id = $1 and state = 0
returning ` + fileColumns

// FinishFile makes a file that is Uploading Ready.
func (d *driver) FinishFile(ctx context.Context, id queue.ID, end store.FileEnd) (store.File, error) {
	return d.oneFile(ctx, "finish file", id, finishFile, uuid(id), end.Purpose, end.Bytes, micros(end.ExpiresIn))
}

const (
	// seenFile holds for what clients see.
	seenFile = `state in (1, 3) and (expires is null or expires > now())`

	selectFile = `select ` + fileColumns + ` from file where id = $1 and ` + seenFile + ` and ($2 = '' or tenant = $2)`
)

// File returns one file.
func (d *driver) File(ctx context.Context, tenant string, id queue.ID) (store.File, error) {
	return d.oneFile(ctx, "file", id, selectFile, uuid(id), tenant)
}

const (
	listFiles     = `select ` + fileColumns + ` from file where ` + seenFile + ` and tenant = $1 and ($2 = '' or purpose = $2)`
	filesUp       = ` and id > $3 order by id limit $4`
	filesDown     = ` and id < $3 order by id desc limit $4`
	fileOfTenants = `select exists (select from file where id = $1 and tenant = $2)`
)

// ListFiles returns a page of a tenant's files. The file that it comes after may
// be gone, as long as its row is there.
func (d *driver) ListFiles(ctx context.Context, tenant string, p store.FilePage) (files []store.File, more bool, err error) {
	query, from := listFiles+filesDown, last
	if p.Ascending {
		query, from = listFiles+filesUp, queue.ID{}
	}
	err = d.call(ctx, "list files", func(ctx context.Context) error {
		if p.After != (queue.ID{}) {
			from = p.After
			known := false
			if err := d.pool.QueryRow(ctx, fileOfTenants, uuid(from), tenant).Scan(&known); err != nil {
				return err
			}
			if !known {
				return noFile(from)
			}
		}
		rows, err := d.pool.Query(ctx, query, tenant, p.Purpose, uuid(from), p.Limit+1)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
			f, err := scanFile(scan)
			files = append(files, f)
			return err
		})
	})
	if err != nil {
		return nil, false, err
	}
	more = len(files) > p.Limit
	return files[:min(len(files), p.Limit)], more, nil
}

// Chunk returns the n-th chunk of a file.
func (d *driver) Chunk(ctx context.Context, id queue.ID, n int) (data []byte, err error) {
	err = d.call(ctx, "chunk", func(ctx context.Context) error {
		err := d.pool.QueryRow(ctx, `select data from file_chunk where file = $1 and n = $2`, uuid(id), n).Scan(&data)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return data, err
}

// deleteFile tells of a file that is Growing without changing it.
const deleteFile = `
update file set state = case state when 1 then 2 else state end
where id = $1 and ` + seenFile + ` and ($2 = '' or tenant = $2)
returning state`

// DeleteFile makes a file Gone.
func (d *driver) DeleteFile(ctx context.Context, tenant string, id queue.ID) error {
	return d.call(ctx, "delete file", func(ctx context.Context) error {
		var state int16
		err := d.pool.QueryRow(ctx, deleteFile, uuid(id), tenant).Scan(&state)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return noFile(id)
		case err == nil && store.FileState(state) == store.Growing:
			return fmt.Errorf("file %s: its batch has not ended: %w", id, queue.ErrRunning)
		}
		return err
	})
}
