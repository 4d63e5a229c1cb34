package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// large returns a module that takes long to compile.
func large(t *testing.T, funcs int) *rewrite.Module {
	t.Helper()
	var m w.Module
	var body []byte
	for range 2000 {
		body = w.Seq(body, w.LocalGet(0), w.I32(1), w.I32Add, w.LocalSet(0))
	}
	for range funcs {
		m.Func(w.Sig("", "i"), body, w.LocalGet(0))
	}
	re, err := rewrite.Rewrite(m.Memory(1).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return re
}

func TestCompileStops(t *testing.T) {
	e := newEngine(t, engine.Options{})
	wasm := large(t, 400)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Compile(ctx, wasm); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("compile = %v, want deadline exceeded", err)
	}
}

// TestCompileTogether: of many that want the same code, those whose context
// ends leave, and the others get it.
func TestCompileTogether(t *testing.T) {
	e := newEngine(t, engine.Options{})
	wasm := large(t, 3)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := context.Background()
			if i%2 == 0 {
				ctx = canceled
			}
			code, err := e.Compile(ctx, wasm)
			switch {
			case err != nil && ctx == canceled && errors.Is(err, context.Canceled):
			case err != nil:
				t.Errorf("compile %d = %v", i, err)
			default:
				if err := code.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCompileRefuses(t *testing.T) {
	e := newEngine(t, engine.Options{})
	if _, err := e.Compile(t.Context(), &rewrite.Module{Wasm: []byte("no module")}); !errors.Is(err, engine.ErrCompile) {
		t.Errorf("compile = %v, want ErrCompile", err)
	}
	code, err := e.Compile(t.Context(), &rewrite.Module{Wasm: new(w.Module).Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := code.Instantiate(t.Context(), limit); err == nil || !strings.Contains(err.Error(), rewrite.FuelGlobal) {
		t.Errorf("instantiate what was not rewritten = %v, want what is missing", err)
	}
}

// TestSharedCode: closing one of two does not pull the code from under the
// other.
func TestSharedCode(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	a, b := compile(t, e, testGuest(1)), compile(t, e, testGuest(1))
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err := b.Instantiate(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	if v, err := in.Call(t.Context(), "count", plenty); v != 1001 || err != nil {
		t.Errorf("count = %d, %v", v, err)
	}
}

// TestCache: machine code is kept for nobody else, under the rewriter's
// version, and a directory that others may write to is refused.
func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	for range 2 {
		e := newEngine(t, engine.Options{CacheDir: dir, Host: []engine.HostModule{testHost}})
		in := start(t, image(t, e, testGuest(1)))
		if v, err := in.Call(t.Context(), "count", plenty); v != 1001 || err != nil {
			t.Errorf("count = %d, %v", v, err)
		}
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && d.IsDir() && info.Mode().Perm() != 0o700 && os.PathSeparator == '/' {
			t.Errorf("%s has mode %#o, want 0700", path, info.Mode().Perm())
		}
		if !d.IsDir() {
			files++
			if !strings.Contains(path, "rewrite-1") {
				t.Errorf("%s is not under the rewriter's version", path)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files of machine code, %v", files, err)
	}
	if os.PathSeparator != '/' {
		return // no mode bits to refuse
	}
	link, elsewhere := filepath.Join(t.TempDir(), "link"), t.TempDir()
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, engine.Options{CacheDir: link, Host: []engine.HostModule{testHost}})
	if err := errors.Join(os.Remove(link), os.Symlink(elsewhere, link)); err != nil {
		t.Fatal(err)
	}
	compile(t, e, testGuest(2))
	if left, err := filepath.Glob(filepath.Join(elsewhere, "*")); err != nil || len(left) > 0 {
		t.Errorf("machine code went where a link pointed later: %v, %v", left, err)
	}
	for _, open := range []string{dir, filepath.Join(dir, "rewrite-1")} {
		if err := os.Chmod(open, 0o722); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.New(t.Context(), engine.Options{CacheDir: dir}); err == nil || !strings.Contains(err.Error(), "0722") {
			t.Errorf("open to all: new = %v, want a refusal that names the mode", err)
		}
		if err := os.Chmod(open, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}
