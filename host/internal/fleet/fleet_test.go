package fleet_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"

	"github.com/casemate/casemate/host/internal/fleet"
	"github.com/casemate/casemate/host/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// echo answers each byte with itself, on a Unix socket like PostgreSQL's, and
// tells of what it hears.
func echo(t *testing.T) (database string, heard chan string) {
	t.Helper()
	heard = make(chan string, 9)
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/.s.PGSQL.5432")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					heard <- string(buf[:n])
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "postgres://user@/db?sslmode=disable&host=" + dir, heard
}

// talk is one connection through a proxy.
type talk struct {
	*testing.T
	net.Conn
}

func dial(t *testing.T, p *fleet.Proxy, database string) talk {
	t.Helper()
	u, err := p.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(u, "@")
	addr, _, _ := strings.Cut(rest, "/")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return talk{t, c}
}

func (c talk) send(s string) {
	c.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.Fatal(err)
	}
}

// hears returns the byte that comes within a while, or why none does.
func (c talk) hears(within time.Duration) (string, error) {
	c.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.Fatal(err)
	}
	buf := make([]byte, 1)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

const (
	soon   = 5 * time.Second
	awhile = 50 * time.Millisecond
)

func TestProxy(t *testing.T) {
	database, heard := echo(t)
	p, err := fleet.NewProxy(database)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := dial(t, p, database)
	for _, way := range []struct {
		hold   func()
		arrive int
	}{{p.Hold, 0}, {p.HoldAnswers, 2}} {
		c.send("a")
		if got, err := c.hears(soon); got != "a" {
			t.Fatalf("got %q, %v; want the byte back", got, err)
		}
		<-heard
		way.hold()
		c.send("b")
		late := dial(t, p, database)
		late.send("c")
		for _, c := range []talk{c, late} {
			if got, err := c.hears(awhile); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("while it holds: got %q, %v; want silence", got, err)
			}
		}
		if n := len(heard); n != way.arrive {
			t.Errorf("%d bytes arrived while it holds; want %d", n, way.arrive)
		}
		p.Release()
		for want, c := range map[string]talk{"b": c, "c": late} {
			if got, err := c.hears(soon); got != want {
				t.Errorf("after the release: got %q, %v; want %q", got, err, want)
			}
			<-heard
		}
	}
	p.Cut()
	if got, err := c.hears(soon); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the cut: got %q, %v; want a broken connection", got, err)
	}
	c = dial(t, p, database)
	c.send("d")
	if got, err := c.hears(soon); got != "d" {
		t.Errorf("a new connection after the cut: got %q, %v", got, err)
	}
}

func TestProxyOfPostgres(t *testing.T) {
	database := testdb.Postgres(t)
	p, err := fleet.NewProxy(database)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	through, err := p.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("postgres", through)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var name string
	if err := db.QueryRow("select current_database()").Scan(&name); err != nil || !strings.Contains(database, name) {
		t.Errorf("got database %q, %v; want that of %s", name, err, database)
	}
}

// TestOverlay builds a program whose wall clock is ten minutes off, and whose
// durations are right.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	overlay, err := fleet.WriteOverlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "clock")
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./testdata/clock").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, skew := range []int64{0, 600, -600} {
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), fleet.SkewVariable+"="+strconv.FormatInt(skew, 10))
		before := time.Now().Unix()
		out, err := cmd.Output()
		after := time.Now().Unix()
		if err != nil {
			t.Fatal(err)
		}
		var said, slept int64
		if _, err := fmt.Sscan(string(out), &said, &slept); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if said < before+skew || said > after+skew {
			t.Errorf("skew %d: the program says %d between %d and %d", skew, said, before, after)
		}
		if slept < 20 || slept > 5000 {
			t.Errorf("skew %d: 20 ms took it %d ms", skew, slept)
		}
	}
}
