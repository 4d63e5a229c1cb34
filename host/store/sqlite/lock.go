package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/gofrs/flock"

	"github.com/casemate/casemate/host/store"
)

// serverLock keeps a second server from the file: neither would wake the other's
// claimer, and each would write behind the other's back. The operating system
// gives it back when the process ends, however it ends. The file stays: if it
// were removed, two servers could hold locks on two files of one name.
type serverLock struct{ file *flock.Flock }

// lockServer takes the lock of the database at path, which is not a symlink, and
// writes down who has it.
func lockServer(path string) (*serverLock, error) {
	name := path + ".lock"
	l := flock.New(name, flock.SetPermissions(0o644))
	got, err := l.TryLock()
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("a server must be allowed to make %s and other files beside the database: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !got {
		return nil, fmt.Errorf("%s has it: stop that one, or name another file for this one: %w", holder(name), store.ErrInUse)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	// It is only for people to read, so it may fail.
	_ = os.WriteFile(name, fmt.Appendf(nil, "process %d on %s, since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339)), 0o644)
	return &serverLock{l}, nil
}

// longestHolder bounds what is repeated of a lock file.
const longestHolder = 300

// holder returns what a lock file says of who holds it. A server that has only
// just taken it may not have written that yet.
func holder(name string) string {
	for range 10 {
		text, err := os.ReadFile(name)
		if err != nil {
			break
		}
		line, _, whole := strings.Cut(string(text), "\n")
		if whole && line != "" && len(line) < longestHolder && strings.IndexFunc(line, unprintable) < 0 {
			return line
		}
		time.Sleep(time.Millisecond)
	}
	return "another process"
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// release forgets who had the lock and gives it back.
func (l *serverLock) release() error {
	_ = os.Truncate(l.file.Path(), 0)
	return l.file.Unlock()
}

// longestChain is how many symlinks may lead to a file.
const longestChain = 40

// resolve returns the one name of a file, which need not exist: SQLite puts its
// log beside what a symlink leads to, and the lock has to be there too.
func resolve(path string) (string, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range longestChain {
		dir, err := filepath.EvalSymlinks(filepath.Dir(file))
		if err != nil {
			return "", err
		}
		file = filepath.Join(dir, filepath.Base(file))
		to, err := os.Readlink(file)
		if err != nil {
			return file, nil //nolint:nilerr // it is no symlink
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		file = to
	}
	return "", fmt.Errorf("%s: too many symlinks", path)
}
