package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tetratelabs/wazero"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// openCache returns the cache of machine code in dir. wazero keys what it
// keeps by its own version and by the bytes that it compiled; these depend on
// the version of the rewriter, so another one would only leave garbage behind.
func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	// What is checked is what is used: a link on the way may belong to somebody
	// who points it elsewhere later.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	own := filepath.Join(dir, "rewrite-"+strconv.Itoa(rewrite.Version))
	for _, d := range []string{dir, own} {
		if err := privateDir(d); err != nil {
			return nil, err
		}
	}
	cache, err := wazero.NewCompilationCacheWithDir(own)
	if err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	return cache, nil
}

// privateDir makes dir, or checks that nobody else can write into it.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("engine: cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("engine: cache: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("engine: cache: %s has mode %#o: others can write machine code into it, want 0700", dir, perm)
	}
	if !ownedByUs(info) {
		return fmt.Errorf("engine: cache: %s belongs to another user, who can write machine code into it: choose another directory", dir)
	}
	return nil
}
