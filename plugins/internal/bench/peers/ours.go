package main

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// ours calls a guest as a host does: metered, with a deadline, and each call
// on the state after initialisation.
type ours struct {
	ctx     context.Context
	manager *plugins.Manager
	plugin  *plugins.Plugin
}

func load(g *guest) (*ours, error) {
	ctx := context.Background()
	m, err := plugins.New(ctx, plugins.Options{})
	if err != nil {
		return nil, err
	}
	o := &ours{ctx: ctx, manager: m}
	if o.plugin, err = m.Load(ctx, g.name, g.native); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *ours) close() error { return o.manager.Close(o.ctx) }

func (o *ours) worker(bool) (call, error) {
	return func(in []byte) ([]byte, error) {
		r := o.do("bench", in, plugins.Limits{})
		return r.Output, failed(r)
	}, nil
}

func (o *ours) do(tenant string, in []byte, l plugins.Limits) plugins.Result {
	return o.plugin.Call(o.ctx, plugins.Call{
		Entry: abi.ExportToolCall, Input: in, Limits: l, Env: capability.Env{Tenant: tenant},
	})
}

func failed(r plugins.Result) error {
	if r.Class != plugins.OK {
		return fmt.Errorf("%s: %s", r.Class, r.Detail)
	}
	return nil
}
