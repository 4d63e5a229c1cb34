package testdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	embedded "github.com/fergusstrange/embedded-postgres"
)

const role = "casemate"

// instance is a PostgreSQL server on a temporary directory and a socket in it.
type instance struct {
	process
	safety safety
}

// safety is what commits outlive; the less, the faster.
type safety string

const (
	safeFromNothing safety = `-c fsync=off -c full_page_writes=off -c synchronous_commit=off`
	safeFromKill    safety = `-c fsync=off -c full_page_writes=off`
	// safeFromAll is for measuring: it is what is used for work.
	safeFromAll safety = `-c shared_buffers=256MB -c random_page_cost=1.1`
)

const (
	postgresScript = `start() { "$1/postgres" -D data -k "$PWD" -h '' -c max_connections=300 -c shared_buffers=64MB $2 >>log 2>&1 & }`
	endPostgres    = "QUIT"
)

// start finds binaries, else downloads them, and starts a server.
func (s *instance) start() error {
	if err := s.makeDir("postgres"); err != nil {
		return err
	}
	bin, err := binaries()
	if err != nil {
		if bin, err = download(s.dir); err != nil {
			return err
		}
	}
	initdb := s.command(filepath.Join(bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", role, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := s.run(postgresScript, endPostgres, bin, string(s.safety)); err != nil {
		return err
	}
	return s.wait(s.url())
}

// binaries returns the directory of the newest server that is installed.
func binaries() (string, error) {
	if p, err := exec.LookPath("postgres"); err == nil {
		if _, err := os.Stat(filepath.Join(filepath.Dir(p), "initdb")); err == nil {
			return filepath.Dir(p), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("no postgres in PATH or /usr/lib/postgresql")
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// download has embedded-postgres unpack its binaries under dir. The server it
// starts on them to do so is stopped at once, or, for root, does not start.
func download(dir string) (string, error) {
	home := filepath.Join(dir, "embedded")
	bin := filepath.Join(home, "bin")
	e := embedded.NewDatabase(embedded.DefaultConfig().
		BinariesPath(home).RuntimePath(filepath.Join(dir, "runtime")).DataPath(filepath.Join(dir, "scratch")).
		Port(0).Logger(io.Discard))
	err := e.Start()
	if err == nil {
		err = e.Stop()
	}
	if _, missing := os.Stat(filepath.Join(bin, "initdb")); missing != nil {
		return "", fmt.Errorf("none is installed and none could be downloaded: %w", errors.Join(err, missing))
	}
	return bin, nil
}

func (s *instance) url() string {
	u := url.URL{
		Scheme: "postgres", User: url.User(role), Path: "/postgres",
		RawQuery: url.Values{"host": {s.dir}, "sslmode": {"disable"}}.Encode(),
	}
	return u.String()
}
