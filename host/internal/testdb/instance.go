package testdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

const (
	role         = "casemate"
	startTimeout = time.Minute
)

// instance is a PostgreSQL server on a temporary directory and a socket in it.
type instance struct {
	dir   string
	as    *syscall.Credential // who runs it; nil: this process's user
	watch *exec.Cmd
	alive io.Closer // the server stops when this end of a pipe is closed
}

// watchScript runs the server until its standard input ends, which it does when
// this process ends for whatever reason; then it removes what is left. It has a
// process group of its own, so an interrupt from a terminal does not reach it.
const watchScript = `"$1/postgres" -D "$2/data" -k "$2" -h '' -F ` +
	`-c max_connections=300 -c shared_buffers=64MB -c synchronous_commit=off -c full_page_writes=off >"$2/log" 2>&1 &
cat >/dev/null
kill -QUIT $!
wait $!
rm -rf "$2"`

// start finds binaries, else downloads them, and starts a server.
func (s *instance) start() (err error) {
	// Not the directory for temporary files: it may be closed to the user that
	// runs the server, and a socket's path has to be short.
	if s.dir, err = os.MkdirTemp("/tmp", "casemate-postgres-"); err != nil {
		return err
	}
	if err := s.giveAway(); err != nil {
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
	s.watch = s.command("sh", "-c", watchScript, "sh", bin, s.dir)
	if s.alive, err = s.watch.StdinPipe(); err != nil {
		return err
	}
	if err := s.watch.Start(); err != nil {
		s.watch = nil
		return err
	}
	return s.wait()
}

// giveAway makes the directory somebody else's when this process is root's,
// since PostgreSQL refuses to run as root.
func (s *instance) giveAway() error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return fmt.Errorf("no user to run it as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.dir, int(uid), int(gid))
}

func (s *instance) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.as}
	return c
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

// wait returns when the server answers.
func (s *instance) wait() error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := execute(s.url(), "select 1")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server does not answer: %w: %s", err, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop stops the server, if there is one, and removes its directory.
func (s *instance) stop() {
	if s.watch != nil {
		s.alive.Close()
		_ = s.watch.Wait() // it ends by the signal that it was asked to send
		s.watch = nil
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // the watching script removes it as well
	}
}
