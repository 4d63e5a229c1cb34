package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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

const (
	// migrateWithin is how long tables may be kept from being migrated by who
	// uses them, such as a backup.
	migrateWithin = 2 * time.Minute
	// lockBriefly is how long a migration waits for all tables together, since
	// everybody else waits behind it. It is less than a deadlock takes to be
	// found (1 s), so of a migration and a write that wait for each other it is
	// the migration that gives up.
	lockBriefly = "700ms"
	// calm is the least time between two tries, for what waited to get done.
	calm = 500 * time.Millisecond
)

// migrate brings the schema up to date; hosts that start at once do it one after
// the other.
func (d *driver) migrate(ctx context.Context) error {
	files, err := migrationFiles()
	if err != nil {
		return err
	}
	for {
		have, err := d.version(ctx)
		if err != nil || have == len(files) {
			return err
		}
		if have > len(files) {
			return outdated(have, len(files))
		}
		if err := d.migrateOnce(ctx, files); !locked(err) {
			return err
		}
		select {
		case <-time.After(calm + rand.N(calm)):
		case <-ctx.Done():
			return fmt.Errorf("the schema is at version %d, this binary needs %d, and others keep tables locked, such as a backup: start again when it is done: %w", have, len(files), err)
		}
	}
}

// errOlder marks a schema that is to be migrated first.
var errOlder = errors.New("database is older than this binary")

// check refuses a schema that is not this binary's.
func (d *driver) check(ctx context.Context) error {
	files, err := migrationFiles()
	if err != nil {
		return err
	}
	have, err := d.version(ctx)
	switch {
	case err != nil:
		return err
	case have > len(files):
		return outdated(have, len(files))
	case have == 0:
		return fmt.Errorf("it has no tables of casemate: check that the URL is right, or start a host, which makes them: %w", errOlder)
	case have < len(files):
		return fmt.Errorf("its schema has version %d and this binary needs %d: start a server of this version, which migrates it, or use an older binary: %w", have, len(files), errOlder)
	}
	return nil
}

func outdated(have, known int) error {
	return fmt.Errorf("its schema has version %d and this binary knows %d: start a newer binary: %w", have, known, store.ErrOutdated)
}

func migrationFiles() ([]string, error) { return fs.Glob(migrations, "migrations/*.sql") }

const selectVersion = `select coalesce(max(version), 0) from schema_migration`

// version is that of the schema; 0: there is none.
func (d *driver) version(ctx context.Context) (have int, err error) {
	var exists bool
	if err := d.pool.QueryRow(ctx, `select to_regclass('schema_migration') is not null`).Scan(&exists); err != nil || !exists {
		return 0, err
	}
	err = d.pool.QueryRow(ctx, selectVersion).Scan(&have)
	return have, err
}

// lockAll locks all tables in one statement, whose time is limited as a whole.
// A migration that finds them locked has changed nothing, and none waits later.
const lockAll = `
do $$ declare names text; begin
	select string_agg(c.oid::regclass::text, ', ' order by c.oid) into names
	from pg_class c
	where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
		and c.relname <> 'schema_migration';
	if names is not null then execute 'lock table ' || names || ' in access exclusive mode'; end if;
end $$`

// migrateOnce applies what is missing in one transaction.
func (d *driver) migrateOnce(ctx context.Context, files []string) error {
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, `select set_config('statement_timeout', $1, true)`, lockBriefly); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockMigrate)); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, createVersions); err != nil {
			return err
		}
		var have int
		if err := t.QueryRow(ctx, selectVersion).Scan(&have); err != nil {
			return err
		}
		if have >= len(files) {
			return nil // another host was first
		}
		if _, err := t.Exec(ctx, lockAll); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `select set_config('statement_timeout', '0', true)`); err != nil {
			return err
		}
		for i, file := range files[have:] {
			if err := apply(ctx, t, have+i+1, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	})
}

// locked reports whether a statement was given up because of others' locks.
func locked(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code {
	case "55P03", "57014", "40P01": // lock_timeout, statement_timeout, deadlock
		return true
	}
	return false
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
