// Package guesttest builds a guest for the tests of its own package and
// replays the decisions that its testdata expects. It runs no module itself: the
// test brings what does.
package guesttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build compiles the main package in dir, "." for the package under test, as
// a plugin is compiled for use, and returns the module. It needs the go
// command. Go's test cache does not see what the command reads, so a test
// should import what it builds, as a package's own test does by itself.
func Build(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build",
		"-buildmode=c-shared", "-ldflags=-w", "-trimpath", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("guesttest: build %s: %v\n%s", dir, err, text)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatalf("guesttest: %v", err)
	}
	return wasm
}
