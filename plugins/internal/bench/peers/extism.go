package main

import (
	"context"
	"fmt"

	extism "github.com/extism/go-sdk"
)

// extismPeer calls a guest by Extism's Go SDK, without a timeout, which would
// make each call slower.
type extismPeer struct {
	ctx  context.Context
	code *extism.CompiledPlugin
}

func openExtism(g *guest) (peer, error) {
	ctx := context.Background()
	code, err := extism.NewCompiledPlugin(ctx,
		extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: g.extism, Name: "main"}}},
		extism.PluginConfig{EnableWasi: g.wasi}, nil)
	if err != nil {
		return nil, err
	}
	return &extismPeer{ctx, code}, nil
}

func (p *extismPeer) close() error { return p.code.Close(p.ctx) }

func (p *extismPeer) worker(keep bool) (call, error) {
	config := extism.PluginInstanceConfig{ModuleConfig: moduleConfig()}
	if !keep {
		return func(in []byte) ([]byte, error) {
			i, err := p.code.Instance(p.ctx, config)
			if err != nil {
				return nil, err
			}
			defer i.Close(p.ctx)
			return callExtism(i, in)
		}, nil
	}
	i, err := p.code.Instance(p.ctx, config)
	if err != nil {
		return nil, err
	}
	return func(in []byte) ([]byte, error) { return callExtism(i, in) }, nil
}

func callExtism(i *extism.Plugin, in []byte) ([]byte, error) {
	code, out, err := i.Call(export, in)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s returned %d", export, int32(code))
	}
	return out, err
}
