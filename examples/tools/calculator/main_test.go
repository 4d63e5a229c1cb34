package main

import (
	"testing"

	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/plugins/plugintest/plugintesting"
	"github.com/casemate/casemate/sdk/guesttest"
)

func TestConformance(t *testing.T) {
	plugintesting.Check(t, guesttest.Build(t, "."), "testdata/calls.json", plugintest.Options{})
}
