// Package engine compiles rewritten Wasm modules, runs their instances under
// fuel, deadline and cancel, and puts instances back to the state of an image
// after each call. It is the only package that knows wazero; to everyone else a
// guest is code, images, instances, and functions that take and return numbers.
// It knows no ABI, no plugin and no capability.
package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// ErrCompile is wrapped by Compile when the module itself is at fault.
var ErrCompile = errors.New("engine: compile")

// compileWorkers is how many goroutines compile one module. With fewer than
// two, wazero does not look at the context before it is done.
const compileWorkers = 2

// Options say how an Engine works.
type Options struct {
	// CacheDir keeps machine code across runs, in a directory of its own for
	// each version of the rewriter, created with mode 0700; "" keeps it in
	// memory only. Whoever can write there runs code in this process, so a
	// directory that others may write to is refused.
	CacheDir string
	// Host is what guests can import.
	Host []HostModule
	// Portable restores instances by copying whole images in the Go heap, as
	// is done anyway where the system has nothing better.
	Portable bool
}

// Engine compiles modules and keeps their code. It is safe for concurrent use.
type Engine struct {
	rt       wazero.Runtime
	cache    wazero.CompilationCache // nil without a directory
	portable bool
	pages    *pageMap
	slice    int64 // fuel between two looks at the clock

	mu        sync.Mutex
	compiling map[[sha256.Size]byte]chan struct{}
}

// New returns an engine. It must be closed.
func New(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{
		portable:  o.Portable,
		pages:     processPages,
		slice:     fuelSlice,
		compiling: map[[sha256.Size]byte]chan struct{}{},
	}
	// Fuel stops guests. wazero's own way of stopping them on the end of a
	// context costs a goroutine for each call, leaves at every loop and closes
	// the instance. Debug sections are guest bytes for a parser that no call
	// needs; traces have function names without them.
	cfg := wazero.NewRuntimeConfig().WithCloseOnContextDone(false).WithDebugInfoEnabled(false)
	if o.CacheDir != "" {
		cache, err := openCache(o.CacheDir)
		if err != nil {
			return nil, err
		}
		e.cache = cache
		cfg = cfg.WithCompilationCache(cache)
	}
	e.rt = wazero.NewRuntimeWithConfig(ctx, cfg)
	if err := e.addHosts(ctx, o.Host); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	return e, nil
}

// addHosts makes what guests can import, and what rewritten ones do.
func (e *Engine) addHosts(ctx context.Context, hosts []HostModule) error {
	_, err := e.rt.NewHostModuleBuilder(rewrite.HostModule).NewFunctionBuilder().
		WithName(rewrite.HostYield).
		WithGoModuleFunction(api.GoModuleFunc(yield), []api.ValueType{api.ValueTypeI32}, nil).
		Export(rewrite.HostYield).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("engine: host module %s: %w", rewrite.HostModule, err)
	}
	for _, m := range hosts {
		b := e.rt.NewHostModuleBuilder(m.Name)
		for _, f := range m.Funcs {
			b = b.NewFunctionBuilder().
				WithName(f.Name).
				WithGoModuleFunction(hostFunc(f), apiTypes(f.Sig.Params), apiTypes(f.Sig.Results)).
				Export(f.Name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("engine: host module %s: %w", m.Name, err)
		}
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

// Compile compiles a rewritten module; it stops when ctx is done. One binary
// is compiled once at a time: whoever comes second finds the code of the
// first. The code must be closed; m must not be changed until then. Errors
// wrap ErrCompile or the context's.
func (e *Engine) Compile(ctx context.Context, m *rewrite.Module) (*Code, error) {
	unlock, err := e.lock(ctx, sha256.Sum256(m.Wasm))
	if err != nil {
		return nil, fmt.Errorf("engine: compile: %w", err)
	}
	defer unlock()
	compiled, err := e.compile(ctx, m.Wasm)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("engine: compile: %w", ctx.Err())
		}
		return nil, fmt.Errorf("%w: %w", ErrCompile, err)
	}
	return &Code{engine: e, module: m, compiled: compiled}, nil
}

// compile turns a panic of the compiler into an error: its input is hostile. It
// does not see one in wazero's own workers, which are what makes it stop.
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

// Close frees the code of all modules. No call may run and none may follow;
// every instance and every image is still to be closed by its owner.
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
