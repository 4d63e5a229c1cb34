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

// kitCommands are those that run a module without a host.
func kitCommands() []*command {
	return []*command{
		{
			name: "plugin test", args: "FILE [--cases FILE]", nargs: 1, run: pluginTest,
			flags: []flagDef{{name: "cases", arg: "FILE", text: "expected calls of a tool, or the decision table of a policy, as JSON"}},
			short: "tell whether a module is a good tool or policy",
			long: `Test runs a module in the sandbox of a host, with made-up state and no network,
and prints what is wrong with it: calls that trap, tools that claim to be pure
and are not, policies that do not answer the same question the same way, three
times on each of two independent instances, or need more than half of the budget
for the largest question. A problem makes it exit with 1; a remark does not.

Cases is a JSON array of expected calls, {"name","tool","arguments"} with
"output" or "error", or of expected decisions, {"name","question","answer"}.`,
		},
		{
			name: "plugin run", args: "FILE --tool NAME [--input JSON]", nargs: 1, run: pluginRun,
			flags: []flagDef{
				{name: "tool", arg: "NAME", text: "which tool"},
				{name: "input", arg: "JSON", text: "its arguments, a JSON object; - reads them from standard input; without it {}"},
			},
			short: "call one tool of a module and print what it answers",
			long: `Run calls a tool once. It may use every capability that its plugin wants, over
an empty state that is thrown away and without a network. The answer goes to
standard output, what the guest logged and what the call used to standard error.`,
		},
		{
			name: "plugin bench", args: "FILE [--tool NAME] [--input JSON] [-n N]", nargs: 1, run: pluginBench,
			flags: []flagDef{
				{name: "tool", arg: "NAME", text: "which tool; without it the first, or a policy's largest question"},
				{name: "input", arg: "JSON", text: "its arguments, a JSON object; - reads them from standard input; without it a tool's warm-up input"},
				{name: "n", arg: "N", text: "how many calls, 1000"},
			},
			short: "measure what a call of a module costs",
			long: `Bench makes the same call many times, one after the other, and prints its time
with the restore of the instance in it, its fuel and its memory. Only figures of
one run on one machine compare.`,
		},
	}
}

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
		data, err := os.ReadFile(o.cases)
		if err != nil {
			return err
		}
		if kit.Cases, err = plugintest.ParseCases(data); err != nil {
			return fmt.Errorf("%s: %w", o.cases, err)
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
		return wrongUse("plugin run", "want --tool NAME: casemate plugin inspect shows the tools")
	}
	arguments, err := inputOf(a, o, "plugin run")
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
	if err := plugintest.CheckResult(res.Output); err != nil {
		fmt.Fprintf(a.stderr, "answer: %s\n", printable(string(res.Output)))
		return fmt.Errorf("%s: %w", args[0], err)
	}
	fmt.Fprintf(a.stdout, "%s\n", res.Output)
	return nil
}

// wrongUse is a mistake in the flags of a command.
func wrongUse(command, text string) error {
	return &usageError{text: text, help: "casemate help " + command}
}

// inputOf returns the arguments that the command line gives, or nil.
func inputOf(a app, o options, command string) (json.RawMessage, error) {
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
		return nil, wrongUse(command, "--input is not a JSON object")
	}
	return data, nil
}

// pluginBench measures calls of a module.
func pluginBench(ctx context.Context, a app, o options, args []string) error {
	wasm, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if o.calls < 1 || o.calls > plugintest.MaxCalls {
		return wrongUse("plugin bench", fmt.Sprintf("want -n from 1 to %d", plugintest.MaxCalls))
	}
	arguments, err := inputOf(a, o, "plugin bench")
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
