package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
)

const table = "testdata/decisions.json"

func TestDecide(t *testing.T) {
	guesttest.ReplayPolicy(t, table, abi.ExportRetry, func(t *testing.T, c guesttest.Call) guesttest.Result {
		var q abi.RetryQuestion
		if err := json.Unmarshal(c.Input, &q); err != nil {
			t.Fatal(err)
		}
		a, err := decide(q)
		if err != nil {
			t.Fatal(err)
		}
		a.V = abi.Version // as the exported entry sets it
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return guesttest.Result{Output: out}
	})
}

func TestModule(t *testing.T) {
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
	p, err := m.Load(ctx, "retry-default", guesttest.Build(t, "."))
	if err != nil {
		t.Fatal(err)
	}
	guesttest.ReplayPolicy(t, table, abi.ExportRetry, func(t *testing.T, c guesttest.Call) guesttest.Result {
		r := p.Call(t.Context(), plugins.Call{
			Entry: c.Entry, Input: c.Input, Seed: c.Seed, NowMS: c.NowMS,
			Limits: plugins.Limits{Wall: time.Minute}, // what is answered, however slow the machine
		})
		switch {
		case r.Fail != nil:
			return guesttest.Result{Code: r.Fail.Code.String(), Text: r.Fail.Text}
		case r.Class != plugins.OK:
			return guesttest.Result{Code: string(r.Class), Text: r.Detail}
		}
		return guesttest.Result{Output: r.Output}
	})
}
