package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/casemate/casemate/host/store"
)

var (
	errReadOnly = errors.New("the database was opened to read only")
	// errStarted is for what was read of a file that nobody was to write to.
	errStarted = fmt.Errorf("a server was started meanwhile: try again: %w", store.ErrUnavailable)
)

// openReadOnly opens the file as it is, whether it has a server or not. A file
// without a log has none, and is read without locks: to read it otherwise would
// leave an empty log behind, and would not work where that may not be made.
func (d *driver) openReadOnly(ctx context.Context) error {
	if _, err := os.Stat(d.file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no such file: a server makes it when it first starts: %w", err)
	}
	mode := "&mode=ro"
	if d.quiet = !d.hasLog(); d.quiet {
		mode += "&immutable=1"
	}
	if err := d.openReaders(ctx, mode); err != nil {
		return explain(err)
	}
	return d.checkSchema(ctx)
}

func (d *driver) hasLog() bool {
	_, err := os.Stat(d.file + "-wal")
	return err == nil
}

// disturbed reports whether a server has been started on a file that is read
// without locks.
func (d *driver) disturbed() bool { return d.quiet && d.hasLog() }

// explain says what to do about a file that SQLite does not open.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("it is not a database of casemate: %w", err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("it, or the log beside it, cannot be read by this user: run this as the user of the server: %w", err)
	}
	return err
}

const countVersions = `select count(*) from sqlite_schema where name = 'schema_migration'`

// checkSchema refuses a schema that this binary's statements are not for.
func (d *driver) checkSchema(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var have, known int
	err = d.view(ctx, "schema", func(s *snapshot) error {
		if err := s.one(countVersions, nil, &known); err != nil || known == 0 {
			return err
		}
		return s.one(selectVersion, nil, &have)
	})
	switch {
	case err != nil:
		return explain(err)
	case have == 0:
		return errors.New("it is not a database of casemate")
	case have > len(files):
		return outdated(have, len(files))
	case have < len(files):
		return fmt.Errorf("its schema has version %d and this binary reads %d: start a server of this binary on it first, which migrates it", have, len(files))
	}
	return nil
}
