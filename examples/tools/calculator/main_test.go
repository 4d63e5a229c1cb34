package main

import (
	"context"
	"testing"

	"github.com/casemate/casemate/plugins"
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
	p, err := m.Load(ctx, "calculator", guesttest.Build(t, "."))
	if err != nil {
		t.Fatal(err)
	}
	guesttest.ReplayTool(t, "testdata/calls.json", func(t *testing.T, c guesttest.Call) guesttest.Result {
		r := p.Call(t.Context(), plugins.Call{Entry: c.Entry, Input: c.Input})
		switch {
		case r.Fail != nil:
			return guesttest.Result{Code: r.Fail.Code.String(), Text: r.Fail.Text}
		case r.Class != plugins.OK:
			return guesttest.Result{Code: string(r.Class), Text: r.Detail}
		}
		return guesttest.Result{Output: r.Output}
	})
}
