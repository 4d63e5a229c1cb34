// Package testguest builds guests for the host's tests, each once a process.
// It loads and runs none of them.
package testguest

import (
	"sync"
	"testing"

	"github.com/casemate/casemate/sdk/guesttest"
)

var (
	mu    sync.Mutex
	built = map[string][]byte{} // by folder
)

// Build returns the module of the guest in folder, a path from the package
// under test.
func Build(t testing.TB, folder string) []byte {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	wasm, ok := built[folder]
	if !ok {
		wasm = guesttest.Build(t, folder)
		built[folder] = wasm
	}
	return wasm
}
