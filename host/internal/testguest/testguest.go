// Package testguest builds guests for tests, each once a process. It loads and
// runs none of them.
package testguest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// module is the path of this module; guests are named by their folder in it.
const module = "github.com/casemate/casemate/"

var built sync.Map // folder → func() ([]byte, error)

// Build returns the module of the guest in a folder of this repository:
// "policies/retry-default", "host/internal/endtoend/testdata/waiter".
func Build(t testing.TB, folder string) []byte {
	t.Helper()
	once, _ := built.LoadOrStore(folder, sync.OnceValues(func() ([]byte, error) { return Compile(folder) }))
	wasm, err := once.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// Compile is Build for a TestMain.
func Compile(folder string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "casemate-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, module+folder)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("testguest: build %s: %w\n%s", folder, err, text)
	}
	return os.ReadFile(out)
}
