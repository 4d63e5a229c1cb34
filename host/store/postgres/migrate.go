package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// migrations are applied in the order of their numbers and never edited.
//
//go:embed migrations/*.sql
var migrations embed.FS

const createVersions = `
create table if not exists schema_migration (
	version integer     primary key,
	name    text        not null,
	applied timestamptz not null default now()
)`

// migrate brings the schema up to date in one transaction; hosts that start at
// once do it one after the other.
func (d *driver) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockMigrate)); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, createVersions); err != nil {
			return err
		}
		var have int
		if err := t.QueryRow(ctx, `select coalesce(max(version), 0) from schema_migration`).Scan(&have); err != nil {
			return err
		}
		if have > len(files) {
			return fmt.Errorf("its schema has version %d and this binary knows %d: start a newer binary: %w", have, len(files), store.ErrOutdated)
		}
		for i, file := range files[have:] {
			if err := apply(ctx, t, have+i+1, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	})
}

func apply(ctx context.Context, t pgx.Tx, version int, file string) error {
	name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
	number, _, _ := strings.Cut(name, "_")
	if n, err := strconv.Atoi(number); err != nil || n != version {
		return fmt.Errorf("want number %d", version)
	}
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	// Several statements in one text need the simple protocol.
	if _, err := t.Conn().PgConn().Exec(ctx, string(text)).ReadAll(); err != nil {
		return err
	}
	_, err = t.Exec(ctx, `insert into schema_migration (version, name) values ($1, $2)`, version, name)
	return err
}

const (
	daysAhead   = 3
	lockPatient = "2s" // a partition that cannot be made now is made by a later sweep
)

const selectToday = `select (now() at time zone 'utc')::date::timestamp`

// makeAhead creates the partitions of the days to come, once a day and process.
// Until it succeeds, rows go to the default partition.
func (d *driver) makeAhead(ctx context.Context) error {
	var today time.Time
	if err := d.pool.QueryRow(ctx, selectToday).Scan(&today); err != nil {
		return err
	}
	name := today.Format("20060102")
	d.mu.Lock()
	made := d.days.made == name || time.Now().Before(d.days.after)
	d.mu.Unlock()
	if made {
		return nil
	}
	for _, table := range []string{"body", "result"} {
		for day := range daysAhead + 1 {
			made, err := d.makeDay(ctx, table, today.AddDate(0, 0, day))
			if err != nil {
				return err
			}
			if !made {
				d.postpone()
				return nil
			}
		}
	}
	d.mu.Lock()
	d.days = days{made: name}
	d.mu.Unlock()
	return nil
}

// days says which partitions were made ahead.
type days struct {
	made  string    // the day of the last success
	after time.Time // no try before
	pause time.Duration
}

const (
	firstPause = time.Second
	longPause  = time.Minute
)

// postpone leaves the partitions to a later sweep. Who waits for a table's lock
// keeps others from it, so the tries get rarer.
func (d *driver) postpone() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.days.pause = min(max(2*d.days.pause, firstPause), longPause)
	d.days.after = time.Now().Add(d.days.pause)
}

// makeDay attaches a table that it made beside the partitioned one, which
// stops nobody from using that. It reports false when others kept it from
// locking that one. Rows of the day that the default partition has already keep
// the table from being attached; then that partition holds the whole day.
func (d *driver) makeDay(ctx context.Context, table string, day time.Time) (made bool, err error) {
	name := table + "_" + day.Format("20060102")
	err = pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, `select pg_advisory_xact_lock($1), set_config('lock_timeout', $2, true)`, int64(lockMigrate), lockPatient); err != nil {
			return err
		}
		var exists bool
		if err := t.QueryRow(ctx, `select to_regclass($1) is not null`, name).Scan(&exists); err != nil || exists {
			return err
		}
		// The names are a constant and a date.
		if _, err := t.Exec(ctx, fmt.Sprintf(`create table %s (like %s including all)`, name, table)); err != nil {
			return err
		}
		_, err := t.Exec(ctx, fmt.Sprintf(`alter table %s attach partition %s for values from ('%s') to ('%s')`, table, name, floor(day), floor(day.AddDate(0, 0, 1))))
		return err
	})
	var answer *pgconn.PgError
	if errors.As(err, &answer) && (answer.Code == "23514" || answer.Code == "55P03") {
		return answer.Code == "23514", nil
	}
	return err == nil, err
}

// floor is the least id of a request created on that day.
func floor(day time.Time) queue.ID {
	var id queue.ID
	ms := day.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
