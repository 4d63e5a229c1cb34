package sqlite_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

const serveEnv = "CASEMATE_TEST_SERVE"

// TestServe is the server in another process: it opens the file that it is told
// of, says what came of that, and keeps it until its input ends.
func TestServe(t *testing.T) {
	path := os.Getenv(serveEnv)
	if path == "" {
		t.Skip("it is for other tests")
	}
	path, readOnly := strings.CutSuffix(path, "?read")
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{ReadOnly: readOnly})
	if err == nil && readOnly {
		_, err = d.Stats(t.Context())
	}
	fmt.Printf("opened: %v\n", err)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	d.Close()
}

// serve starts another process on the file, as a user who may not do everything
// if nobody is set, and returns what came of it.
func serve(t *testing.T, path string, nobody bool) (c *exec.Cmd, opened string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if nobody && os.Getuid() == 0 {
		self = copied(t, self)
	}
	c = exec.Command(self, "-test.run=^TestServe$", "-test.v")
	c.Env = append(os.Environ(), serveEnv+"="+path)
	if nobody && os.Getuid() == 0 {
		asNobody(c)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "opened: "); ok {
			return c, text
		}
	}
	t.Fatal("the other process said nothing")
	return nil, ""
}

// everybodys returns a directory that everybody may look into.
func everybodys(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "casemate-test") //nolint:usetesting // that one is for this user only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(os.Chmod(dir, 0o755), os.RemoveAll(dir)) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copied returns a copy of the test's binary that everybody may run.
func copied(t *testing.T, from string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	to := filepath.Join(everybodys(t), "test")
	if err = errors.Join(err, os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return to
}

func refused(t *testing.T, what, path string, want ...string) {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("%s: got %v, want ErrInUse", what, err)
	}
	for _, w := range want {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Errorf("%s: got %q, want %q in it", what, err, w)
		}
	}
}

// TestSecondServerIsRefused by whichever name it knows the file.
func TestSecondServerIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "casemate.db")
	d := open(t, path)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "same name", path, fmt.Sprint("process ", os.Getpid()), host, "stop that one")
	links := t.TempDir()
	for to, from := range map[string]string{"file": path, "again": filepath.Join(links, "file"), "dir": dir} {
		if err := os.Symlink(from, filepath.Join(links, to)); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, "symlink", filepath.Join(links, "file"))
	refused(t, "symlink to a symlink", filepath.Join(links, "again"))
	refused(t, "symlink to the directory", filepath.Join(links, "dir", "casemate.db"))
	t.Chdir(dir)
	refused(t, "relative", "casemate.db")
	refused(t, "roundabout", "../"+filepath.Base(dir)+"/./casemate.db")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, filepath.Join(links, "again")).Close()
}

// TestFileBehindALink: a link that leads to no file yet names the file that it
// makes.
func TestFileBehindALink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "casemate.db"), filepath.Join(dir, "link")
	if err := os.Symlink("casemate.db", link); err != nil {
		t.Fatal(err)
	}
	d := open(t, link)
	defer d.Close()
	refused(t, "the file", path)
}

// TestKilledServerLeavesNoLock: the lock is that of the process, the file says
// only whose it was.
func TestKilledServerLeavesNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	c, opened := serve(t, path, false)
	if opened != "<nil>" {
		t.Fatalf("the other process: %s", opened)
	}
	refused(t, "while it runs", path, fmt.Sprint("process ", c.Process.Pid))
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if text, err := os.ReadFile(path + ".lock"); err != nil || len(text) == 0 {
		t.Fatalf("lock file: got %q, %v, want what the dead process wrote", text, err)
	}
	d := open(t, path)
	refused(t, "after that", path, fmt.Sprint("process ", os.Getpid()))
	d.Close()
}

func TestAnyLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	for name, text := range map[string]string{"empty": "", "long": strings.Repeat("x", 1<<16), "no text": "\x00\x1b[31m\n"} {
		if err := os.WriteFile(path+".lock", []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		d := open(t, path)
		if err := os.WriteFile(path+".lock", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, name, path, "another process has it")
		d.Close()
		if err := os.Remove(path + ".lock"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServerMayNotWrite: it says so, by the name of what it may not write.
func TestServerMayNotWrite(t *testing.T) {
	dir := everybodys(t)
	open(t, filepath.Join(dir, "casemate.db")).Close()
	if err := errors.Join(os.Remove(filepath.Join(dir, "casemate.db.lock")), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	_, opened := serve(t, filepath.Join(dir, "casemate.db"), true)
	if !strings.Contains(opened, "casemate.db.lock") || !strings.Contains(opened, "permission denied") {
		t.Errorf("got %s, want the file and why", opened)
	}
}
