// Package engine compiles and runs Wasm modules. It is the only package that
// knows wazero; to everyone else a guest is code, instances, and functions that
// take and return numbers. It knows no ABI, no plugin and no capability.
package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// ErrCompile is wrapped by Compile when the module itself is at fault.
var ErrCompile = errors.New("engine: compile")

// compileWorkers is how many goroutines compile one module. With fewer than
// two, wazero does not look at the context before it is done.
const compileWorkers = 2

// HostFunc is a function that guests may import.
type HostFunc struct {
	Name string
	Sig  wasmbin.Signature
	// Fn gets its arguments in stack and leaves its result in stack[0]. It
	// ends the guest's call with Abort; any other panic is a fault of the
	// host, contained in the call.
	Fn func(ctx context.Context, mem Memory, stack []uint64)
	// SeesCancel lets Fn run after the call's context was canceled, so that
	// it can tell the guest. All others are not entered then.
	SeesCancel bool
}

// HostModule is a module of host functions, linked by its name.
type HostModule struct {
	Name  string
	Funcs []HostFunc
}

// Engine compiles modules and keeps their code. It is safe for concurrent use.
type Engine struct {
	rt    wazero.Runtime
	cache wazero.CompilationCache // nil without a directory

	mu        sync.Mutex
	compiling map[[sha256.Size]byte]chan struct{}
}

// New returns an engine whose guests can import host. Machine code is kept in
// cacheDir, created with mode 0700; "" keeps it in memory only. Whoever can
// write to the directory runs code in this process, so one that others may
// write to is refused.
func New(ctx context.Context, cacheDir string, host []HostModule) (*Engine, error) {
	e := &Engine{compiling: map[[sha256.Size]byte]chan struct{}{}}
	cfg := wazero.NewRuntimeConfig().
		WithCloseOnContextDone(true).
		// Debug sections are guest bytes for a parser that no call needs;
		// traces have function names without them.
		WithDebugInfoEnabled(false)
	if cacheDir != "" {
		cache, err := openCache(cacheDir)
		if err != nil {
			return nil, err
		}
		e.cache = cache
		cfg = cfg.WithCompilationCache(cache)
	}
	e.rt = wazero.NewRuntimeWithConfig(ctx, cfg)
	for _, m := range host {
		if err := e.addHost(ctx, m); err != nil {
			return nil, errors.Join(err, e.Close(ctx))
		}
	}
	return e, nil
}

func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return nil, fmt.Errorf("engine: cache: %s has mode %#o: others can write machine code into it, want 0700", dir, perm)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: cache: %w", err)
	}
	return cache, nil
}

func (e *Engine) addHost(ctx context.Context, m HostModule) error {
	b := e.rt.NewHostModuleBuilder(m.Name)
	for _, f := range m.Funcs {
		b = b.NewFunctionBuilder().
			WithName(m.Name+"."+f.Name).
			WithGoModuleFunction(hostFunc(f), apiTypes(f.Sig.Params), apiTypes(f.Sig.Results)).
			Export(f.Name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("engine: host module %s: %w", m.Name, err)
	}
	return nil
}

func apiTypes(types []wasmbin.ValType) []api.ValueType {
	out := make([]api.ValueType, len(types))
	for i, t := range types {
		out[i] = api.ValueType(t) // both are the numbers of the binary format
	}
	return out
}

// Compile validates and compiles wasm; it stops when ctx is done. One binary
// is compiled once at a time: whoever comes second finds the code of the
// first. The code must be closed. Errors wrap ErrCompile or the context's.
func (e *Engine) Compile(ctx context.Context, wasm []byte) (*Code, error) {
	unlock, err := e.lock(ctx, sha256.Sum256(wasm))
	if err != nil {
		return nil, fmt.Errorf("engine: compile: %w", err)
	}
	defer unlock()
	compiled, err := e.compile(ctx, wasm)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("engine: compile: %w", ctx.Err())
		}
		return nil, fmt.Errorf("%w: %w", ErrCompile, err)
	}
	c := &Code{rt: e.rt, compiled: compiled}
	for _, m := range compiled.ExportedMemories() {
		c.minMemory = uint64(m.Min()) * pageSize
	}
	return c, nil
}

// compile turns a panic of the compiler into an error: its input is hostile.
func (e *Engine) compile(ctx context.Context, wasm []byte) (_ wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("compiler panicked: %v", p)
		}
	}()
	return e.rt.CompileModule(experimental.WithCompilationWorkers(ctx, compileWorkers), wasm)
}

// lock waits until nobody compiles the module with this digest.
func (e *Engine) lock(ctx context.Context, digest [sha256.Size]byte) (unlock func(), err error) {
	for {
		e.mu.Lock()
		busy, ok := e.compiling[digest]
		if !ok {
			done := make(chan struct{})
			e.compiling[digest] = done
			e.mu.Unlock()
			return func() {
				e.mu.Lock()
				delete(e.compiling, digest)
				e.mu.Unlock()
				close(done)
			}, nil
		}
		e.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close frees everything. No call may run and none may follow.
func (e *Engine) Close(ctx context.Context) error {
	err := e.rt.Close(ctx)
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("engine: close: %w", err)
	}
	return nil
}
