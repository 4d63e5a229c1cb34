package testguests

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	root := t.TempDir()
	now := time.Unix(1_700_000_000, 0)
	put := func(name, text string, at time.Time) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	source, guest := filepath.Join(folder, "c", "main.c"), filepath.Join(build, "pristine-c.wasm")

	put(source, "int main;", now)
	if _, err := read(root, C); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("no guest: got %v, want ErrNotBuilt", err)
	}
	put(guest, "old", now.Add(-time.Second))
	if _, err := read(root, C); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("a guest older than its source: got %v, want ErrNotBuilt", err)
	}
	put(guest, "new", now.Add(time.Second))
	if got, err := read(root, C); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v, want %q", got, err, "new")
	}
	if _, err := read(root, "cobol"); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("another language: got %v, want ErrNotBuilt", err)
	}
}
