package main

import (
	"encoding/json"
	"testing"

	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/plugins/plugintest/plugintesting"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
)

const table = "testdata/decisions.json"

func TestDecide(t *testing.T) {
	guesttest.ReplayPolicy(t, table, abi.ExportRoute, func(t *testing.T, c guesttest.Call) guesttest.Result {
		var q abi.RouteQuestion
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

func TestConformance(t *testing.T) {
	plugintesting.Check(t, guesttest.Build(t, "."), table, plugintest.Options{})
}

func TestLivesLong(t *testing.T) {
	livesLong(t, plugintesting.Load(t, guesttest.Build(t, ".")))
}
