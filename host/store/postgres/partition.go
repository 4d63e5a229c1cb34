package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate/casemate/host/queue"
)

// daily are the tables that have a partition for each day of the ids of their
// requests, and one for all other days.
var daily = []string{"body", "result", "step", "event", "decision"}

const (
	daysAhead = 3
	// lockPatient is how long a partition's table is waited for, since others wait
	// behind; what cannot be made, or dropped, now is by a later sweep.
	lockPatient = "300ms"
	dayName     = "20060102"
)

const selectToday = `select (now() at time zone 'utc')::date::timestamp`

// selectMissing says which of the names are not those of tables.
const selectMissing = `select n from unnest($1::text[]) with ordinality as x(n, i) where to_regclass(n) is null order by i`

// partition is one table's day.
type partition struct {
	table string
	day   time.Time
}

func (p partition) name() string { return p.table + "_" + p.day.Format(dayName) }

// makeAhead creates the partitions of the days to come, once a day and process.
// Until it succeeds, rows go to the default partition.
func (d *driver) makeAhead(ctx context.Context) error {
	var today time.Time
	if err := d.pool.QueryRow(ctx, selectToday).Scan(&today); err != nil {
		return err
	}
	name := today.Format(dayName)
	d.mu.Lock()
	made := d.days.made == name || time.Now().Before(d.days.after)
	d.mu.Unlock()
	if made {
		return nil
	}
	missing, err := d.missing(ctx, today)
	if err != nil {
		return err
	}
	for _, p := range missing {
		made, err := d.makeDay(ctx, p)
		if err != nil {
			return err
		}
		if !made {
			d.postpone()
			return nil
		}
	}
	d.mu.Lock()
	d.days = days{made: name}
	d.mu.Unlock()
	return nil
}

// missing returns the partitions to make.
func (d *driver) missing(ctx context.Context, today time.Time) (missing []partition, err error) {
	all := make(map[string]partition)
	var names []string
	for ahead := range daysAhead + 1 {
		for _, table := range daily {
			p := partition{table, today.AddDate(0, 0, ahead)}
			all[p.name()] = p
			names = append(names, p.name())
		}
	}
	rows, err := d.pool.Query(ctx, selectMissing, names)
	if err != nil {
		return nil, err
	}
	names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	for _, n := range names {
		missing = append(missing, all[n])
	}
	return missing, err
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

// patient begins a transaction that waits for no table's lock for long, and for
// whoever else makes or drops partitions.
func (d *driver) patient(ctx context.Context, f func(t pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, `select set_config('lock_timeout', $1, true), pg_advisory_xact_lock($2)`, lockPatient, int64(lockMigrate)); err != nil {
			return err
		}
		return f(t)
	})
}

// selectTable looks for a table itself: to_regclass may remember from before a
// lock was had that there was none.
const selectTable = `select exists (select from pg_class where relname = $1 and relnamespace = current_schema()::regnamespace)`

// makeDay attaches a table that it made beside the partitioned one, which
// stops nobody from using that. It reports false when others kept it from
// locking that one. Rows of the day that the default partition has already keep
// the table from being attached, and so does a partition that somebody made;
// then that one holds the whole day.
func (d *driver) makeDay(ctx context.Context, p partition) (made bool, err error) {
	proof, err := d.prove(ctx, p)
	if err == nil {
		err = d.patient(ctx, func(t pgx.Tx) error {
			var exists bool
			if err := t.QueryRow(ctx, selectTable, p.name()).Scan(&exists); err != nil || exists {
				return err
			}
			// The names are a constant and a date.
			if _, err := t.Exec(ctx, fmt.Sprintf(`create table %s (like %s including all)`, p.name(), p.table)); err != nil {
				return err
			}
			_, err := t.Exec(ctx, fmt.Sprintf(`alter table %s attach partition %s for values %s`, p.table, p.name(), dayBounds(p.day)))
			return err
		})
	}
	if proof != "" {
		if err := d.disprove(ctx, p.table, proof); err != nil {
			return false, err
		}
	}
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &answer) && (answer.Code == "23514" || answer.Code == "42P17"):
		return true, nil // check_violation, invalid_object_definition: partitions would overlap
	case locked(err):
		return false, nil
	}
	return err == nil, err
}

// dayBounds are those of a day's partitions, as the server writes them.
func dayBounds(day time.Time) string {
	return fmt.Sprintf("FROM ('%s') TO ('%s')", uuid(least(day)), uuid(least(day.AddDate(0, 0, 1))))
}

// least is no more than any id of a request created from then on.
func least(t time.Time) queue.ID {
	var id queue.ID
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// largeDefault is the size from which on a default partition is not read through
// while it is locked.
const largeDefault = 8 << 20

// prove gives a large default partition a checked constraint that says that it
// has no rows of the day: it is then attached without being read under a lock
// that stops everybody. It returns the constraint, which is to be dropped; one
// that a process left behind that ended here is taken over.
func (d *driver) prove(ctx context.Context, p partition) (constraint string, err error) {
	var size int64
	var exists bool
	if err := d.pool.QueryRow(ctx, `select pg_relation_size(to_regclass($1)), to_regclass($2) is not null`, p.table+"_default", p.name()).Scan(&size, &exists); err != nil {
		return "", err
	}
	if size < largeDefault || exists {
		return "", nil
	}
	constraint = p.name() + "_elsewhere"
	from, to := least(p.day), least(p.day.AddDate(0, 0, 1))
	if err := d.pool.QueryRow(ctx, fmt.Sprintf(`select exists (select from %s_default where request >= $1 and request < $2)`, p.table), uuid(from), uuid(to)).Scan(&exists); err != nil {
		return "", err
	}
	if exists {
		return "", &pgconn.PgError{Code: "23514", Severity: "ERROR", Message: "the default partition has rows of the day"}
	}
	add := fmt.Sprintf(`alter table %s_default add constraint %s check (request < '%s' or request >= '%s') not valid`, p.table, constraint, from, to)
	err = d.patient(ctx, func(t pgx.Tx) error {
		var there bool
		if err := t.QueryRow(ctx, `select exists (select from pg_constraint where conrelid = to_regclass($1) and conname = $2)`, p.table+"_default", constraint).Scan(&there); err != nil || there {
			return err
		}
		_, err := t.Exec(ctx, add)
		return err
	})
	if err != nil {
		return "", err
	}
	_, err = d.pool.Exec(ctx, fmt.Sprintf(`alter table %s_default validate constraint %s`, p.table, constraint))
	return constraint, err
}

// disprove drops a constraint that prove made, which keeps rows of that day out
// as long as they have no other place.
func (d *driver) disprove(ctx context.Context, table, constraint string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for {
		err := d.patient(ctx, func(t pgx.Tx) error {
			_, err := t.Exec(ctx, fmt.Sprintf(`alter table %s_default drop constraint if exists %s`, table, constraint))
			return err
		})
		if !locked(err) {
			return err
		}
		select {
		case <-time.After(calm):
		case <-ctx.Done():
			return err
		}
	}
}
