package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/casemate/casemate/plugins/plugintest"
)

// errProblems is the end of a test that found some.
var errProblems = errors.New("the module has problems")

// pluginTest runs the conformance kit on a module.
func pluginTest(ctx context.Context, a app, o options, args []string) error {
	wasm, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var kit plugintest.Options
	if o.cases != "" {
		if kit.Cases, err = os.ReadFile(o.cases); err != nil {
			return err
		}
	}
	r, err := plugintest.Check(ctx, wasm, kit)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	for _, f := range r.Findings {
		for i, line := range strings.Split(f.String(), "\n") {
			if i > 0 {
				line = "  " + line
			}
			fmt.Fprintln(a.stdout, printable(line))
		}
	}
	if !r.OK() {
		return fmt.Errorf("%s: %w", args[0], errProblems)
	}
	fmt.Fprintf(a.stdout, "ok: %s %s, %d calls\n", r.Descriptor.Name, r.Descriptor.Version, r.Calls)
	return nil
}

// pluginRun calls one tool of a module.
func pluginRun(ctx context.Context, a app, o options, args []string) error {
	wasm, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if o.tool == "" {
		return &usageError{text: "plugin run: want --tool NAME: casemate plugin inspect shows the tools", help: "casemate help plugin run"}
	}
	arguments, err := inputOf(a, o)
	if err != nil {
		return err
	}
	res, err := plugintest.Run(ctx, wasm, o.tool, arguments)
	if err != nil {
		lastWords(a.stderr, err)
		return fmt.Errorf("%s: %w", args[0], err)
	}
	for _, l := range res.Logs {
		fmt.Fprintf(a.stderr, "guest: %s\n", printable(l.Text))
	}
	u := res.Usage
	fmt.Fprintf(a.stderr, "%s: %d fuel, %v, %d KiB of memory, %d host calls\n", res.Class, u.Fuel, u.Wall, u.Memory>>10, u.HostCalls)
	for _, p := range res.Puts {
		fmt.Fprintf(a.stderr, "would write: %s\n", printable(p.Key))
	}
	if res.Detail != "" {
		for line := range strings.Lines(res.Detail) {
			fmt.Fprintf(a.stderr, "%s\n", printable(strings.TrimRight(line, "\n")))
		}
		return fmt.Errorf("%s: %s ended in %s", args[0], o.tool, res.Class)
	}
	fmt.Fprintf(a.stdout, "%s\n", res.Output)
	return nil
}

// inputOf returns the arguments that the command line gives, or nil.
func inputOf(a app, o options) (json.RawMessage, error) {
	data := []byte(o.input)
	switch o.input {
	case "":
		return nil, nil
	case "-":
		var err error
		if data, err = io.ReadAll(a.stdin); err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		return nil, &usageError{text: "--input is not a JSON object", help: "casemate help plugin run"}
	}
	return data, nil
}

// pluginBench measures calls of a module.
func pluginBench(ctx context.Context, a app, o options, args []string) error {
	wasm, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if o.calls < 1 {
		return &usageError{text: "plugin bench: want --n of 1 or more", help: "casemate help plugin bench"}
	}
	arguments, err := inputOf(a, o)
	if err != nil {
		return err
	}
	m, err := plugintest.Bench(ctx, wasm, o.tool, arguments, o.calls)
	if err != nil {
		lastWords(a.stderr, err)
		return fmt.Errorf("%s: %w", args[0], err)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "call\t%s\n", printable(m.What))
	fmt.Fprintf(w, "ended in\t%s\n", m.Class)
	fmt.Fprintf(w, "load\t%v\n", m.Load)
	fmt.Fprintf(w, "median of %d\t%v\n", m.Calls, m.Median)
	fmt.Fprintf(w, "99th percentile\t%v\n", m.P99)
	if m.FuelLo == m.FuelHi {
		fmt.Fprintf(w, "fuel\t%d\n", m.FuelLo)
	} else {
		fmt.Fprintf(w, "fuel\t%d to %d\n", m.FuelLo, m.FuelHi)
	}
	fmt.Fprintf(w, "memory\t%d KiB\n", m.Memory>>10)
	if m.Unrestorable == nil {
		fmt.Fprintf(w, "idle instance\tabout %d KiB\n", m.Idle>>10)
	} else {
		fmt.Fprintf(w, "instances\ta fresh one for each call: it uses %s\n", strings.Join(m.Unrestorable, ", "))
	}
	return w.Flush()
}
