package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// exchange is the input and the output of one call; it travels in a context.
type exchange struct{ in, out []byte }

type exchangeKey struct{}

// wazeroPeer calls a guest on wazero with its default configuration: no fuel,
// no deadline, no limit of memory.
type wazeroPeer struct {
	ctx     context.Context
	runtime wazero.Runtime
	code    wazero.CompiledModule
	config  wazero.ModuleConfig
}

func openWazero(g *guest) (peer, error) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	if g.wasi {
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := nativeImports(ctx, r); err != nil {
		return nil, err
	}
	code, err := r.CompileModule(ctx, g.native)
	if err != nil {
		return nil, err
	}
	return &wazeroPeer{ctx: ctx, runtime: r, code: code, config: moduleConfig().WithStartFunctions("_initialize")}, nil
}

// moduleConfig gives guests a clock: Go's garbage collector needs one.
func moduleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithSysNanotime().WithSysWalltime().WithRandSource(rand.Reader)
}

func (p *wazeroPeer) close() error { return p.runtime.Close(p.ctx) }

func (p *wazeroPeer) worker(keep bool) (call, error) {
	x := &exchange{}
	ctx := context.WithValue(p.ctx, exchangeKey{}, x)
	if !keep {
		return func(in []byte) ([]byte, error) {
			m, err := p.runtime.InstantiateModule(ctx, p.code, p.config)
			if err != nil {
				return nil, err
			}
			defer m.Close(ctx)
			return x.call(ctx, m.ExportedFunction(export), in)
		}, nil
	}
	m, err := p.runtime.InstantiateModule(ctx, p.code, p.config)
	if err != nil {
		return nil, err
	}
	f := m.ExportedFunction(export)
	return func(in []byte) ([]byte, error) { return x.call(ctx, f, in) }, nil
}

func (x *exchange) call(ctx context.Context, f api.Function, in []byte) ([]byte, error) {
	x.in, x.out = in, x.out[:0]
	var stack [1]uint64
	if err := f.CallWithStack(ctx, stack[:]); err != nil {
		return nil, err
	}
	if code := int32(stack[0]); code != 0 {
		return nil, fmt.Errorf("%s returned %d", export, code)
	}
	return x.out, nil
}

// nativeImports offers what the guests import of Casemate's contract.
func nativeImports(ctx context.Context, r wazero.Runtime) error {
	i32 := api.ValueTypeI32
	of := func(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }
	b := r.NewHostModuleBuilder("casemate_v1")
	b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, s []uint64) {
		s[0] = uint64(len(of(ctx).in))
	}), nil, []api.ValueType{i32}).Export("input_len")
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, s []uint64) {
		to, ok := m.Memory().Read(uint32(s[1]), uint32(s[2]))
		if !ok {
			panic("input_read: out of bounds")
		}
		in := of(ctx).in
		s[0] = uint64(copy(to, in[min(int(uint32(s[0])), len(in)):]))
	}), []api.ValueType{i32, i32, i32}, []api.ValueType{i32}).Export("input_read")
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, s []uint64) {
		from, ok := m.Memory().Read(uint32(s[0]), uint32(s[1]))
		if !ok {
			panic("output_write: out of bounds")
		}
		x := of(ctx)
		x.out = append(x.out, from...)
		s[0] = 0
	}), []api.ValueType{i32, i32}, []api.ValueType{i32}).Export("output_write")
	_, err := b.Instantiate(ctx)
	return err
}
