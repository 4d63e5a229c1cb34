package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// clock is the time in milliseconds. A statement sees the same one throughout.
const clock = `cast(round(unixepoch('subsec') * 1000) as integer)`

// selectNow reads the clock once a transaction; every time it writes is this one.
const selectNow = `select ` + clock

// tx is a transaction on the connection that writes.
type tx struct {
	d     *driver
	now   int64 // milliseconds
	gates sql.NullBool
	hints hints
}

// update runs f in a transaction that no other writer can be beside. ctx is
// looked at while it waits for its turn; then the transaction, which is short,
// is not interrupted.
func (d *driver) update(ctx context.Context, what string, f func(*tx) error) error {
	if d.o.ReadOnly {
		return fmt.Errorf("sqlite: %s: %w", what, errReadOnly)
	}
	t := &tx{d: d}
	if err := d.inTurn(ctx, func() error { return classify(t.run(f)) }); err != nil {
		return fmt.Errorf("sqlite: %s: %w", what, err)
	}
	d.watchers.tell(t.hints)
	return nil
}

// inTurn runs f while nobody else writes.
func (d *driver) inTurn(ctx context.Context, f func() error) error {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-d.turn }()
	return f()
}

func (t *tx) run(f func(*tx) error) error {
	if _, err := t.exec("begin immediate"); err != nil {
		return err
	}
	err := t.one(selectNow, nil, &t.now)
	if err == nil {
		err = f(t)
	}
	if err == nil {
		_, err = t.exec("commit")
	}
	if err != nil {
		// The transaction may be over already; what matters is that none is left.
		_, _ = t.exec("rollback")
	}
	return err
}

// statement prepares a text once for the life of the connection.
func (t *tx) statement(query string) (*sql.Stmt, error) {
	if s, ok := t.d.statements[query]; ok {
		return s, nil
	}
	s, err := t.d.writer.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	t.d.statements[query] = s
	return s, nil
}

// exec returns how many rows were changed.
func (t *tx) exec(query string, args ...any) (int, error) {
	s, err := t.statement(query) //nolint:sqlclosecheck // closed with the driver
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// one reads one row; the error is sql.ErrNoRows when there is none.
func (t *tx) one(query string, args []any, dest ...any) error {
	s, err := t.statement(query) //nolint:sqlclosecheck // closed with the driver
	if err != nil {
		return err
	}
	return s.QueryRow(args...).Scan(dest...)
}

// each reads all rows; f scans one.
func (t *tx) each(query string, args []any, f func(scan) error) error {
	s, err := t.statement(query) //nolint:sqlclosecheck // closed with the driver
	if err != nil {
		return err
	}
	rows, err := s.Query(args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// ids reads one column of integers.
func (t *tx) ids(query string, args ...any) (ids []int64, err error) {
	err = t.each(query, args, func(scan scan) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// scan is the Scan method of a row.
type scan func(dest ...any) error

func drain(rows *sql.Rows, f func(scan) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// view runs f on one snapshot.
func (d *driver) view(ctx context.Context, what string, f func(*snapshot) error) error {
	t, err := d.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", what, classify(err))
	}
	defer func() { _ = t.Rollback() }()
	err = f(&snapshot{ctx: ctx, tx: t})
	if d.disturbed() {
		err = errStarted
	}
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", what, classify(err))
	}
	return nil
}

// reader is what one and each are methods of: a transaction or a snapshot.
type reader interface {
	one(query string, args []any, dest ...any) error
	each(query string, args []any, f func(scan) error) error
}

// snapshot is a transaction that only reads.
type snapshot struct {
	ctx context.Context
	tx  *sql.Tx
}

func (s *snapshot) one(query string, args []any, dest ...any) error {
	return s.tx.QueryRowContext(s.ctx, query, args...).Scan(dest...)
}

// now reads the clock.
func (s *snapshot) now() (ms int64, err error) {
	err = s.one(selectNow, nil, &ms)
	return ms, err
}

func (s *snapshot) each(query string, args []any, f func(scan) error) error {
	rows, err := s.tx.QueryContext(s.ctx, query, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// at returns the time of a stored one, zero for null.
func at(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64).UTC()
}

// later returns now + d for a column, null when d is 0.
func (t *tx) later(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return t.now + ceilMillis(d)
}

// ceilMillis rounds up, so that no wait gets shorter.
func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
