package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const insertFile = `
insert into file (id, tenant, name, purpose, state, batch, created, touched) values (?, ?, ?, ?, ?, ?, ?7, ?7)`

func (t *tx) createFile(f store.File) error {
	_, err := t.exec(insertFile, f.ID[:], f.Tenant, f.Name, f.Purpose, f.State, idOrNull(f.Batch), t.now)
	return err
}

// idOrNull returns null for the zero id.
func idOrNull(id queue.ID) any {
	if id == (queue.ID{}) {
		return nil
	}
	return id[:]
}

// CreateFile stores a file without content.
func (d *driver) CreateFile(ctx context.Context, f store.File) error {
	f.State = store.Uploading
	return d.update(ctx, "create file", func(t *tx) error { return t.createFile(f) })
}

const touchFile = `update file set touched = ? where id = ? and state = 0`

const upsertChunk = `
insert into file_chunk (file, n, data) values (?, ?, ?)
on conflict (file, n) do update set data = excluded.data`

// PutChunk stores the n-th chunk of a file that is Uploading.
func (d *driver) PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error {
	return d.update(ctx, "put chunk", func(t *tx) error {
		if n, err := t.exec(touchFile, t.now, id[:]); err != nil || n == 0 {
			return noFile(id, err)
		}
		_, err := t.exec(upsertChunk, id[:], n, data)
		return err
	})
}

func noFile(id queue.ID, err error) error {
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return fmt.Errorf("file %s: %w", id, queue.ErrNotFound)
}

const finishFile = `
update file set state = 1, purpose = ?, bytes = ?, expires = ? where id = ? and state = 0`

// FinishFile makes a file that is Uploading Ready.
func (d *driver) FinishFile(ctx context.Context, id queue.ID, end store.FileEnd) (f store.File, err error) {
	err = d.update(ctx, "finish file", func(t *tx) (err error) {
		if n, err := t.exec(finishFile, end.Purpose, end.Bytes, t.later(end.ExpiresIn), id[:]); err != nil || n == 0 {
			return noFile(id, err)
		}
		f, err = file(t, t.now, "", id)
		return err
	})
	return f, err
}

const (
	fileColumns = `id, tenant, name, purpose, bytes, state, coalesce(batch, zeroblob(16)), created, expires`

	// seenFile holds for what clients see, by the clock of ?1.
	seenFile = `state in (1, 3) and (expires is null or expires > ?1)`

	selectFile = `select ` + fileColumns + ` from file where ` + seenFile + ` and id = ?2 and (?3 = '' or tenant = ?3)`
)

func scanFile(scan scan) (f store.File, err error) {
	var created, expires sql.NullInt64
	err = scan((*idColumn)(&f.ID), &f.Tenant, &f.Name, &f.Purpose, &f.Bytes, &f.State, (*idColumn)(&f.Batch), &created, &expires)
	f.Created, f.Expires = at(created), at(expires)
	return f, err
}

func file(q reader, now int64, tenant string, id queue.ID) (store.File, error) {
	f, err := scanFile(func(dest ...any) error { return q.one(selectFile, []any{now, id[:], tenant}, dest...) })
	if errors.Is(err, sql.ErrNoRows) {
		err = noFile(id, nil)
	}
	return f, err
}

// File returns one file.
func (d *driver) File(ctx context.Context, tenant string, id queue.ID) (f store.File, err error) {
	err = d.view(ctx, "file", func(s *snapshot) error {
		now, err := s.now()
		if err == nil {
			f, err = file(s, now, tenant, id)
		}
		return err
	})
	return f, err
}

const (
	listFiles     = `select ` + fileColumns + ` from file where ` + seenFile + ` and tenant = ?2 and (?3 = '' or purpose = ?3)`
	filesUp       = ` and id > ?4 order by id limit ?5`
	filesDown     = ` and id < ?4 order by id desc limit ?5`
	fileOfTenants = `select 1 from file where id = ? and tenant = ?`
)

// lastID is no less than any id.
var lastID = queue.ID{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}

// ListFiles returns a page of a tenant's files. The file that it comes after may
// be gone, as long as its row is there.
func (d *driver) ListFiles(ctx context.Context, tenant string, p store.FilePage) (files []store.File, more bool, err error) {
	query, from := listFiles+filesDown, lastID
	if p.Ascending {
		query, from = listFiles+filesUp, queue.ID{}
	}
	err = d.view(ctx, "list files", func(s *snapshot) error {
		now, err := s.now()
		if err != nil {
			return err
		}
		if p.After != (queue.ID{}) {
			var one int
			from = p.After
			if err := s.one(fileOfTenants, []any{from[:], tenant}, &one); err != nil {
				return noFile(from, err)
			}
		}
		return s.each(query, []any{now, tenant, p.Purpose, from[:], p.Limit + 1}, func(scan scan) error {
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
	err = d.view(ctx, "chunk", func(s *snapshot) error {
		err := s.one(`select data from file_chunk where file = ? and n = ?`, []any{id[:], n}, &data)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return data, err
}

// DeleteFile makes a file Gone.
func (d *driver) DeleteFile(ctx context.Context, tenant string, id queue.ID) error {
	return d.update(ctx, "delete file", func(t *tx) error {
		f, err := file(t, t.now, tenant, id)
		switch {
		case err != nil:
			return err
		case f.State == store.Growing:
			return fmt.Errorf("file %s: its batch has not ended: %w", id, queue.ErrRunning)
		}
		_, err = t.exec(`update file set state = 2 where id = ?`, id[:])
		return err
	})
}
