package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const stepBatch = `
update batch set
	state = ?3, version = version + 1, due = iif(?4, null, ?5 + ?6), settled = ?4,
	started = iif(?3 = 1, coalesce(started, ?5), started), finalized = iif(?3 = 2, coalesce(finalized, ?5), finalized),
	ended = iif(?3 >= 10, coalesce(ended, ?5), ended),
	output = ?7, errors = ?8, line = ?9, pos = ?10, total = ?11, completed = ?12, failed = ?13, refused = ?14, faults = ?15, usage = ?16
where id = ?1 and version = ?2`

// StepBatch makes a step, or nothing.
func (d *driver) StepBatch(ctx context.Context, s store.BatchStep) error {
	return d.update(ctx, "step batch", func(t *tx) error {
		b := &s.Batch
		n, err := t.exec(stepBatch, b.ID[:], b.Version, b.State, b.Settled, t.now, ceilMillis(s.Again),
			idOrNull(b.Output), idOrNull(b.Errors), b.Line, b.Offset, b.Total, b.Completed, b.Failed, b.Refused, b.Faults, b.Usage)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("batch %s: it is not of version %d any more: %w", b.ID, b.Version, store.ErrConflict)
		}
		for i := range s.Requests {
			refused, err := t.write(&s.Requests[i])
			if refused != nil {
				err = refused
			}
			if err != nil {
				return fmt.Errorf("batch %s: %w", b.ID, err)
			}
		}
		if err := t.putLines(b.ID, s.Lines, s.Made); err != nil {
			return err
		}
		return t.putGrown(&s)
	})
}

const (
	insertLine = `insert into batch_line (batch, line, custom_id, start, size, forget) values (?, ?, ?, ?, ?, ?)`
	updateLine = `update batch_line set request = ?3, status = ?4, refusal = ?5 where batch = ?1 and line = ?2`
)

func (t *tx) putLines(batch queue.ID, added, made []store.Line) error {
	for _, l := range added {
		if _, err := t.exec(insertLine, batch[:], l.Line, l.CustomID, l.Offset, l.Size, l.Forget); err != nil {
			return err
		}
	}
	for _, l := range made {
		if _, err := t.exec(updateLine, batch[:], l.Line, idOrNull(l.Request), l.Status, l.Refusal); err != nil {
			return err
		}
	}
	return nil
}

// endGrown leaves no file of nothing.
const endGrown = `
update file set state = iif(?2 > 0, 1, 2), bytes = ?2, expires = ?3 where id = ?1 and state = 3`

func (t *tx) putGrown(s *store.BatchStep) error {
	for _, f := range s.Grow {
		f.State = store.Growing
		if err := t.createFile(f); err != nil {
			return err
		}
	}
	for _, c := range s.Chunks {
		if _, err := t.exec(upsertChunk, c.File[:], c.N, c.Data); err != nil {
			return err
		}
	}
	for _, g := range s.Grown {
		if _, err := t.exec(endGrown, g.ID[:], g.Bytes, t.later(g.ExpiresIn)); err != nil {
			return err
		}
	}
	return nil
}

// selectOpen asks each state for one row: a range of them would be read through.
const selectOpen = `
select exists (select 1 from request where batch is not null and batch = ?1 and state = 0)
	or exists (select 1 from request where batch is not null and batch = ?1 and state = 1)
	or exists (select 1 from request where batch is not null and batch = ?1 and state = 2)
	or exists (select 1 from request where batch is not null and batch = ?1 and state = 3)`

// OpenLines reports whether a request of the batch is in no final state.
func (d *driver) OpenLines(ctx context.Context, id queue.ID) (open bool, err error) {
	err = d.view(ctx, "open lines", func(s *snapshot) error { return s.one(selectOpen, []any{id[:]}, &open) })
	return open, err
}

const selectOpenIDs = `
select id from request where batch is not null and batch = ?1 and state in (0, 1, 2, 3) limit ?2`

// CancelLines cancels requests of the batch, in one transaction.
func (d *driver) CancelLines(ctx context.Context, id queue.ID, limit int) (n int, err error) {
	err = d.update(ctx, "cancel lines", func(t *tx) error {
		n = 0
		var ids []queue.ID
		err := t.each(selectOpenIDs, []any{id[:], limit}, func(scan scan) error {
			var id idColumn
			err := scan(&id)
			ids = append(ids, queue.ID(id))
			return err
		})
		for _, id := range ids {
			if err != nil {
				return err
			}
			_, err = t.cancel("", id, "")
			n++
		}
		return err
	})
	return n, err
}

const selectKnown = `
select custom_id from batch_line where batch = ?1 and custom_id in (select value from json_each(?2))`

// KnownIDs returns the custom ids that are taken.
func (d *driver) KnownIDs(ctx context.Context, id queue.ID, custom []string) (known []string, err error) {
	list, err := json.Marshal(custom)
	if err != nil {
		return nil, fmt.Errorf("sqlite: known ids: %w", err)
	}
	err = d.view(ctx, "known ids", func(s *snapshot) error {
		return s.each(selectKnown, []any{id[:], string(list)}, func(scan scan) error {
			var c string
			err := scan(&c)
			known = append(known, c)
			return err
		})
	})
	return known, err
}

const selectLines = `
select l.line, l.custom_id, l.start, l.size, l.forget, coalesce(l.request, zeroblob(16)), l.status, l.refusal,
	l.request is not null and r.id is null, coalesce(r.state, 0), coalesce(r.class, ''), coalesce(r.code, ''),
	coalesce((select octet_length(data) from result where request = r.id), 0)
from batch_line l left join request r on r.id = l.request and r.deleted = 0
where l.batch = ? and l.line > ?
order by l.line limit ?`

type lineReader interface {
	each(query string, args []any, f func(scan) error) error
}

func lines(q lineReader, id queue.ID, after, limit int) (list []store.Line, err error) {
	err = q.each(selectLines, []any{id[:], after, limit}, func(scan scan) error {
		var l store.Line
		err := scan(&l.Line, &l.CustomID, &l.Offset, &l.Size, &l.Forget, (*idColumn)(&l.Request), &l.Status, &l.Refusal,
			&l.Lost, &l.State, &l.Class, &l.Code, &l.Result)
		list = append(list, l)
		return err
	})
	return list, err
}

// Lines returns lines of a batch.
func (d *driver) Lines(ctx context.Context, id queue.ID, after, limit int) (list []store.Line, err error) {
	err = d.view(ctx, "lines", func(s *snapshot) (err error) {
		list, err = lines(s, id, after, limit)
		return err
	})
	return list, err
}

// LineResults returns results of requests.
func (d *driver) LineResults(ctx context.Context, ids []queue.ID) (map[queue.ID]store.Result, error) {
	results := make(map[queue.ID]store.Result, len(ids))
	err := d.view(ctx, "line results", func(s *snapshot) error {
		for _, id := range ids {
			r := store.Record{ID: id}
			if err := s.result(&r); err != nil {
				return err
			}
			if r.Result != nil {
				results[id] = *r.Result
			}
		}
		return nil
	})
	return results, err
}

// SettleLines forgets the lines that succeeded, and removes the requests that
// are to be forgotten, in one transaction. One that its worker still holds is
// hidden until it is let go of.
func (d *driver) SettleLines(ctx context.Context, id queue.ID, after, limit int) (last int, err error) {
	err = d.update(ctx, "settle lines", func(t *tx) error {
		last = 0
		list, err := lines(t, id, after, limit)
		if err != nil {
			return err
		}
		for _, l := range list {
			last = l.Line
			if l.Forget && l.Request != (queue.ID{}) && !l.Lost {
				if err := t.removeEndedRequest("", l.Request); err != nil {
					return err
				}
			}
			if l.State == queue.Completed {
				if _, err := t.exec(`delete from batch_line where batch = ? and line = ?`, id[:], l.Line); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return last, err
}
