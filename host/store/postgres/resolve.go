package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// guardWrite also tells which transaction it is, for resolve.
	guardWrite    = `select pg_current_xact_id()::text, g.* from (` + guardCaps + `) g`
	selectOutcome = `select coalesce(pg_xact_status($1::text::xid8), 'aborted')`
	resolvePause  = 50 * time.Millisecond
)

// selectTraces reports whether the transaction left a row of these requests
// behind that nobody has changed since. Those of body, event and result never
// are.
const selectTraces = `
select exists (select from request where id = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from body where request = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from result where request = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from event where request = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from step where request = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from decision where request = any($1::uuid[]) and xmin = $2::text::xid)
	or exists (select from usage where request = any($1::uuid[]) and xmin = $2::text::xid)`

// resolve finds out whether a transaction committed whose connection broke
// before it said so: written again, its own effects would look like a lost
// lease. It asks until ctx ends. The server's word is not enough: after a crash
// it gives the ids of transactions that it forgot to others, and one of those
// may have committed.
func (d *driver) resolve(ctx context.Context, xid string, ids []pgtype.UUID, cause error) error {
	for {
		var outcome string
		err := d.call(ctx, "resolve", func(ctx context.Context) (err error) {
			if err := d.pool.QueryRow(ctx, selectOutcome, xid).Scan(&outcome); err != nil || outcome != "committed" {
				return err
			}
			left, err := d.leftTraces(ctx, xid, ids)
			if err == nil && !left {
				outcome = "aborted"
			}
			return err
		})
		var answer *pgconn.PgError
		switch {
		case err == nil && outcome == "committed":
			return nil
		case err == nil && outcome == "aborted", errors.As(err, &answer) && answer.Code == "22023":
			return cause // 22023: a server that never heard of it
		}
		select {
		case <-time.After(resolvePause):
		case <-ctx.Done():
			// Not ErrUnavailable, which says that nothing was committed.
			return fmt.Errorf("postgres: write: transaction %s may have been committed: %s", xid, cause.Error())
		}
	}
}

// leftTraces compares the ids that rows hold: the low 32 bits.
func (d *driver) leftTraces(ctx context.Context, xid string, ids []pgtype.UUID) (left bool, err error) {
	full, err := strconv.ParseUint(xid, 10, 64)
	if err != nil {
		return false, err
	}
	err = d.pool.QueryRow(ctx, selectTraces, ids, strconv.FormatUint(full&0xffff_ffff, 10)).Scan(&left)
	return left, err
}
