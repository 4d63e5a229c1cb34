package telemetry_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/telemetry"
)

func TestLoggerText(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.Logger(&out, "warn", "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("left out")
	log.Warn("plugin replaced", "plugin", "notes")
	if got := out.String(); strings.Contains(got, "left out") || !strings.Contains(got, "casemate: plugin replaced: plugin=notes") {
		t.Errorf("got %q, want the warning alone", got)
	}
}

func TestLoggerJSON(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.Logger(&out, "", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("left out")
	log.Info("line\nend", "n", 1)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%q is not one JSON value: %v", out.String(), err)
	}
	if line["@message"] != "line\nend" || line["@level"] != "info" || line["n"] != 1.0 {
		t.Errorf("got %v", line)
	}
}

func TestLevel(t *testing.T) {
	for name, want := range map[string]hclog.Level{
		"": hclog.Info, "trace": hclog.Trace, "debug": hclog.Debug, "info": hclog.Info, "warn": hclog.Warn, "error": hclog.Error,
	} {
		if got, err := telemetry.Level(name); got != want || err != nil {
			t.Errorf("Level(%q) = %v, %v, want %v", name, got, err, want)
		}
	}
}

func TestLoggerRefuses(t *testing.T) {
	for _, tt := range []struct{ level, format string }{{"loud", ""}, {"off", ""}, {"", "xml"}} {
		if _, err := telemetry.Logger(nil, tt.level, tt.format); err == nil {
			t.Errorf("Logger(%q, %q): no error", tt.level, tt.format)
		}
	}
}
