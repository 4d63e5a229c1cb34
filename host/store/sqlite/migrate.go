package sqlite

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/store"
)

// migrations are applied in the order of their numbers and never edited.
//
//go:embed migrations/*.sql
var migrations embed.FS

const createVersions = `
create table if not exists schema_migration (
	version integer primary key,
	name    text    not null,
	applied integer not null
)`

const selectVersion = `select coalesce(max(version), 0) from schema_migration`

// migrate brings the schema up to date in one transaction, so hosts that start
// at once do it one after the other.
func (d *driver) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	return d.update(ctx, "migrate", func(t *tx) error {
		if _, err := t.exec(createVersions); err != nil {
			return err
		}
		var have int
		if err := t.one(selectVersion, nil, &have); err != nil {
			return err
		}
		if have > len(files) {
			return outdated(have, len(files))
		}
		for i, file := range files[have:] {
			if err := t.migrate(have+i+1, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	})
}

func outdated(have, known int) error {
	return fmt.Errorf("its schema has version %d and this binary knows %d: start a newer binary: %w", have, known, store.ErrOutdated)
}

func (t *tx) migrate(version int, file string) error {
	name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
	number, _, _ := strings.Cut(name, "_")
	if n, err := strconv.Atoi(number); err != nil || n != version {
		return fmt.Errorf("want number %d", version)
	}
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	if _, err := t.d.writer.ExecContext(context.Background(), string(text)); err != nil {
		return err
	}
	_, err = t.exec(`insert into schema_migration (version, name, applied) values (?, ?, ?)`, version, name, t.now)
	return err
}
