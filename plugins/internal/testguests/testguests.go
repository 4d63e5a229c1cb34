// Package testguests finds the guests for tests and benchmarks that are
// written in several languages: one plugin, with the same tools in each. Their
// sources are the folders beside it; make guests-all builds them. It loads and
// runs none of them.
package testguests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/sdk/guesttest"
)

// The languages. Each is a folder of sources, and the end of a plugin's name:
// "pristine-c".
const (
	AssemblyScript = "assemblyscript"
	C              = "c"
	Go             = "go"
	Rust           = "rust"
	WAT            = "wat"
)

// Languages returns all of them.
func Languages() []string { return []string{AssemblyScript, C, Go, Rust, WAT} }

// makeCommand names the command that builds the guests.
const makeCommand = "make guests-all"

// folder is where the sources are and build where the guests are, both from
// the root of the module.
const (
	folder = "plugins/internal/testguests"
	build  = "build/wasm/test"
)

// ErrNotBuilt is wrapped by Read when a guest is missing or older than its
// sources.
var ErrNotBuilt = errors.New("not built")

// Read returns the guest in a language as it was built, packed. It is looked
// for from the root of the module, in or below which the program must run.
func Read(language string) ([]byte, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	return read(root, language)
}

func read(root, language string) ([]byte, error) {
	file := filepath.Join(root, build, "pristine-"+language+".wasm")
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("testguests: the guest in %s: %w: run %s", language, ErrNotBuilt, makeCommand)
	}
	if err != nil {
		return nil, fmt.Errorf("testguests: %w", err)
	}
	changed, err := lastChange(filepath.Join(root, folder, language))
	if err != nil {
		return nil, fmt.Errorf("testguests: %w", err)
	}
	if info.ModTime().Before(changed) {
		return nil, fmt.Errorf("testguests: the guest in %s: %w since its sources changed: run %s",
			language, ErrNotBuilt, makeCommand)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("testguests: %w", err)
	}
	return wasm, nil
}

// Wasm returns the guest in a language. The one in Go is built anew, once a
// process. Another that is not built skips the test, or fails it where the
// environment has CI=true: there the toolchains are a part of the machine.
func Wasm(t testing.TB, language string) []byte {
	t.Helper()
	if language == Go {
		return goGuest(t)
	}
	wasm, err := Read(language)
	switch {
	case err == nil:
		return wasm
	case errors.Is(err, ErrNotBuilt) && os.Getenv("CI") != "true":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	return nil
}

// built is the guest in Go.
var built struct {
	mu   sync.Mutex
	wasm []byte
}

func goGuest(t testing.TB) []byte {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if built.wasm == nil {
		root, err := findRoot()
		if err != nil {
			t.Fatal(err)
		}
		built.wasm = guesttest.Build(t, filepath.Join(root, folder, Go))
	}
	return built.wasm
}

// findRoot returns the folder of the module, in or below which the program
// runs.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("testguests: %w", err)
	}
	for start := dir; ; {
		if info, err := os.Stat(filepath.Join(dir, folder)); err == nil && info.IsDir() {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("testguests: no %s above %s: run from inside the repository", folder, start)
		}
		dir = parent
	}
}

// lastChange returns when a file in dir was last changed.
func lastChange(dir string) (last time.Time, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return last, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return last, err
		}
		if !info.IsDir() && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last, nil
}
