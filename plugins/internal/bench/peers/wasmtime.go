package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bytecodealliance/wasmtime-go/v39"
)

// wasmtimePeer calls a guest on wasmtime with its default configuration: no
// fuel, no epochs, the default allocator.
type wasmtimePeer struct {
	engine *wasmtime.Engine
	code   *wasmtime.Module
	linker *wasmtime.Linker
	wasi   bool
}

func openWasmtime(g *guest) (peer, error) {
	engine := wasmtime.NewEngine()
	code, err := wasmtime.NewModule(engine, g.native)
	if err != nil {
		return nil, err
	}
	p := &wasmtimePeer{engine, code, wasmtime.NewLinker(engine), g.wasi}
	return p, p.define()
}

// define links what the guests import of Casemate's contract.
func (p *wasmtimePeer) define() error {
	if p.wasi {
		if err := p.linker.DefineWasi(); err != nil {
			return err
		}
	}
	// FuncNew, not FuncWrap: that one goes through package reflect.
	i32 := wasmtime.NewValType(wasmtime.KindI32)
	of := func(params, results int) *wasmtime.FuncType {
		return wasmtime.NewFuncType(slices.Repeat([]*wasmtime.ValType{i32}, params), slices.Repeat([]*wasmtime.ValType{i32}, results))
	}
	return errors.Join(
		p.linker.FuncNew("casemate_v1", "input_len", of(0, 1), inputLen),
		p.linker.FuncNew("casemate_v1", "input_read", of(3, 1), inputRead),
		p.linker.FuncNew("casemate_v1", "output_write", of(2, 1), outputWrite))
}

func inputLen(c *wasmtime.Caller, _ []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
	return []wasmtime.Val{wasmtime.ValI32(int32(len(c.Data().(*visit).in)))}, nil
}

func inputRead(c *wasmtime.Caller, v []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
	to, trap := slice(c, v[1].I32(), v[2].I32())
	if trap != nil {
		return nil, trap
	}
	in := c.Data().(*visit).in
	n := copy(to, in[min(int(uint32(v[0].I32())), len(in)):])
	return []wasmtime.Val{wasmtime.ValI32(int32(n))}, nil
}

func outputWrite(c *wasmtime.Caller, v []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
	from, trap := slice(c, v[0].I32(), v[1].I32())
	if trap != nil {
		return nil, trap
	}
	x := c.Data().(*visit)
	x.out = append(x.out, from...)
	return []wasmtime.Val{wasmtime.ValI32(0)}, nil
}

func slice(c *wasmtime.Caller, ptr, n int32) ([]byte, *wasmtime.Trap) {
	memory := c.Data().(*visit).memory.UnsafeData(c)
	from, to := uint64(uint32(ptr)), uint64(uint32(ptr))+uint64(uint32(n))
	if to > uint64(len(memory)) {
		return nil, wasmtime.NewTrap("out of bounds")
	}
	return memory[from:to], nil
}

func (p *wasmtimePeer) close() error {
	p.linker.Close()
	p.code.Close()
	p.engine.Close()
	return nil
}

// visit is a guest in a store of its own.
type visit struct {
	exchange
	store  *wasmtime.Store
	memory *wasmtime.Memory
	entry  *wasmtime.Func
}

func (p *wasmtimePeer) instantiate() (*visit, error) {
	v := &visit{}
	v.store = wasmtime.NewStoreWithData(p.engine, v)
	if p.wasi {
		v.store.SetWasi(wasmtime.NewWasiConfig())
	}
	i, err := p.linker.Instantiate(v.store, p.code)
	if err != nil {
		v.store.Close()
		return nil, err
	}
	v.memory = i.GetExport(v.store, "memory").Memory()
	v.entry = i.GetFunc(v.store, export)
	if p.wasi {
		if _, err := i.GetFunc(v.store, "_initialize").Call(v.store); err != nil {
			v.store.Close()
			return nil, err
		}
	}
	return v, nil
}

func (v *visit) call(in []byte) ([]byte, error) {
	v.in, v.out = in, v.out[:0]
	code, err := v.entry.Call(v.store)
	if err == nil && code != int32(0) {
		err = fmt.Errorf("%s returned %d", export, code)
	}
	return v.out, err
}

func (p *wasmtimePeer) worker(keep bool) (call, error) {
	if !keep {
		return func(in []byte) ([]byte, error) {
			v, err := p.instantiate()
			if err != nil {
				return nil, err
			}
			defer v.store.Close()
			return v.call(in)
		}, nil
	}
	v, err := p.instantiate()
	if err != nil {
		return nil, err
	}
	return v.call, nil
}
