package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// scratchPrefix begins the names of scratch schemas, so that those that a
	// killed process left are found: drop schema … cascade.
	scratchPrefix = "casemate_scratch_"

	selectSchema = `select coalesce(current_schema(), '')`
)

// Scratch makes an empty schema of its own in the database at url. A driver
// that is opened with the returned URL keeps all its tables there; drop removes
// it with all that is in it, once such drivers are closed.
func Scratch(ctx context.Context, url string) (scratchURL string, drop func(context.Context) error, err error) {
	schema := scratchPrefix + strings.ToLower(rand.Text())
	if scratchURL, err = within(url, schema); err != nil {
		return "", nil, err
	}
	if err := execute(ctx, url, "create schema "+schema); err != nil {
		return "", nil, fmt.Errorf("postgres: make a scratch schema: %w", allowed(err))
	}
	drop = func(ctx context.Context) error {
		if err := execute(ctx, url, "drop schema if exists "+schema+" cascade"); err != nil {
			return fmt.Errorf("postgres: drop the scratch schema %s: %w", schema, err)
		}
		return nil
	}
	if err := lands(ctx, scratchURL, schema); err != nil {
		return "", nil, errors.Join(err, drop(context.WithoutCancel(ctx)))
	}
	return scratchURL, drop, nil
}

// allowed says what to grant to a role that may not make schemas.
func allowed(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "42501" {
		return fmt.Errorf("%w: grant create on database to this role, or use one that may, on a copy of the database", err)
	}
	return err
}

// within returns url with schema as the one that names are looked up in.
func within(base, schema string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", errors.New("postgres: url: want postgres://…") // the text may hold a password
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// lands checks that names are looked up in schema: a pooler in between may
// drop the setting, and then everything would go to the tables in use.
func lands(ctx context.Context, url, schema string) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var got string
	if err := conn.QueryRow(ctx, selectSchema, pgx.QueryExecModeExec).Scan(&got); err != nil {
		return fmt.Errorf("postgres: scratch schema: %w", oneLine{err})
	}
	if got != schema {
		return errors.New("postgres: scratch schema: the server, or a pooler before it, ignores search_path: use the URL of a direct connection")
	}
	return nil
}

func execute(ctx context.Context, url, statement string) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, statement); err != nil {
		return oneLine{err}
	}
	return nil
}

// connect reads the settings of a pool in url too, to leave them aside.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: url: %w", err)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("postgres: connect: %w", oneLine{err})
	}
	return conn, nil
}
