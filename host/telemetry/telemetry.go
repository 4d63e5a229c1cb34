// Package telemetry makes the logger of the host and counts what the host does
// for a Prometheus server. It decides nothing about what is logged or counted.
package telemetry

import (
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"
)

// Logger returns a logger that writes lines to w. Level is trace, debug, info,
// warn or error, and "" is info; format is text or json, and "" is text.
func Logger(w io.Writer, level, format string) (hclog.Logger, error) {
	l, err := Level(level)
	if err != nil {
		return nil, err
	}
	switch format {
	case "", "text", "json":
	default:
		return nil, fmt.Errorf("telemetry: log format %q: want text or json", format)
	}
	return hclog.New(&hclog.LoggerOptions{
		Name:       "casemate",
		Level:      l,
		Output:     w,
		JSONFormat: format == "json",
	}), nil
}

// Level returns the level of a name; "" is info.
func Level(name string) (hclog.Level, error) {
	switch name {
	case "trace", "debug", "info", "warn", "error":
		return hclog.LevelFromString(name), nil
	case "":
		return hclog.Info, nil
	}
	return hclog.NoLevel, fmt.Errorf("telemetry: log level %q: want trace, debug, info, warn or error", name)
}
