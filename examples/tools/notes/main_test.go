package main

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
)

func TestCalls(t *testing.T) {
	ctx := t.Context()
	m, err := plugins.New(ctx, plugins.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	p, err := m.Load(ctx, "notes", guesttest.Build(t, "."))
	if err != nil {
		t.Fatal(err)
	}
	guesttest.ReplayTool(t, "testdata/calls.json", func(t *testing.T, c guesttest.Call) guesttest.Result {
		r := p.Call(t.Context(), plugins.Call{Entry: c.Entry, Input: c.Input, Env: capability.Env{
			Tenant:  "default",
			Granted: map[string]bool{abi.OpKVGet: true, abi.OpKVPut: true},
			KV:      state(c.KV),
		}})
		puts := make(map[string][]byte)
		for _, put := range r.Puts {
			puts[put.Key] = put.Value
		}
		switch {
		case r.Fail != nil:
			return guesttest.Result{Code: r.Fail.Code.String(), Text: r.Fail.Text}
		case r.Class != plugins.OK:
			return guesttest.Result{Code: string(r.Class), Text: r.Detail}
		}
		return guesttest.Result{Output: r.Output, Puts: puts}
	})
}

// state is committed state of a plugin.
type state map[string][]byte

// Get implements capability.KV.
func (s state) Get(_ context.Context, key string) (value []byte, ok bool, err error) {
	value, ok = s[key]
	return value, ok, nil
}

// List implements capability.KV.
func (s state) List(context.Context, string, string, int) (keys []string, err error) {
	return slices.Sorted(maps.Keys(s)), nil
}

// Used implements capability.KV.
func (s state) Used(context.Context) (keys int, bytes int64, err error) {
	for key, value := range s {
		bytes += int64(len(key) + len(value))
	}
	return len(s), bytes, nil
}
