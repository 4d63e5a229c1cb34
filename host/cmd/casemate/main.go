// Command casemate runs a host, checks its configuration and packs plugins. It
// holds flags, signals and exit codes; everything else is package host's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	os.Exit(run(context.Background(), app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // the command line itself is wrong
)

// app is what a command may touch of its process.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
}

// run runs the command that args name and returns the exit code.
func run(ctx context.Context, a app, args []string) int {
	err := dispatch(ctx, a, args)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(a.stderr, "casemate: %v\n", err)
	var wrong *usageError
	if errors.As(err, &wrong) {
		fmt.Fprintf(a.stderr, "Run %s to see what there is.\n", wrong.help)
		return exitUsage
	}
	return exitError
}

func dispatch(ctx context.Context, a app, args []string) error {
	if len(args) == 0 {
		return &usageError{text: "no command", help: "casemate help"}
	}
	if asksHelp(args[0]) || args[0] == "help" {
		return help(a.stdout, args[1:])
	}
	c, rest, err := find(args)
	if err != nil {
		return err
	}
	if c == nil { // a group like "plugin"
		return help(a.stdout, args[:1])
	}
	var o options
	positional, wantsHelp, err := c.parse(&o, rest)
	switch {
	case err != nil:
		return err
	case wantsHelp:
		c.help(a.stdout)
		return nil
	}
	if err := c.run(ctx, a, o, positional); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// options are the values of all flags; a command has some of the flags.
type options struct {
	config string
	out    string
	json   bool
	cases  string
	tool   string
	input  string
	calls  int
}

// commands are all of them, in the order of the help.
func commands() []*command {
	return []*command{
		{
			name: "serve", args: "[--config FILE]", run: serve,
			flags: []flagDef{{name: "config", arg: "FILE", text: "configuration; without it the demo model on 127.0.0.1:8080"}},
			short: "run a host until it is told to stop",
			long: `Serve runs a host in the foreground and logs to standard error.

Without --config it listens on 127.0.0.1:8080, keeps its state in
data/casemate.db, answers with the built-in demo model and offers the example
tools of build/wasm. CASEMATE_LISTEN, CASEMATE_STORE and the other CASEMATE_
variables go over the file; casemate help config check tells them.

SIGHUP, or a change of the file, reads the configuration again and replaces
plugins and policies. What else has changed needs a restart, and the log says
so. A configuration that is wrong leaves everything as it was.

SIGINT or SIGTERM claims no more, lets running requests end for the drain time
and hands the rest back to the queue. A second one stops at once. Nothing is
lost either way.`,
		},
		{
			name: "config check", args: "FILE", nargs: 1, run: configCheck,
			short: "tell what is wrong with a configuration file",
			long:  configHelp,
		},
		{
			name: "plugin pack", args: "FILE [-o OUT]", nargs: 1, run: pluginPack,
			flags: []flagDef{{name: "o", arg: "OUT", text: "where to write the packed module; without it FILE is replaced"}},
			short: "write a plugin's descriptor into its module",
			long: `Pack loads a module, asks it to describe itself, without any powers, checks the
answer and writes it into the module, where it can be read without running
code. Packing a packed module again gives the same bytes.`,
		},
		{
			name: "plugin inspect", args: "FILE [--json]", nargs: 1, run: pluginInspect,
			flags: []flagDef{{name: "json", text: "print JSON"}},
			short: "show what a module says of itself, without running it",
			long: `Inspect shows the digest, the ABI, the packed descriptor, the imports and the
exports of a module. It runs none of the module's code.`,
		},
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
			name: "plugin bench", args: "FILE [--tool NAME [--input JSON]] [--n N]", nargs: 1, run: pluginBench,
			flags: []flagDef{
				{name: "tool", arg: "NAME", text: "which tool; without it the first, or a policy's largest question"},
				{name: "input", arg: "JSON", text: "its arguments; without it the plugin's warm-up input"},
				{name: "n", arg: "N", text: "how many calls, 1000"},
			},
			short: "measure what a call of a module costs",
			long: `Bench makes the same call many times, one after the other, and prints its time
with the restore of the instance in it, its fuel and its memory. Only figures of
one run on one machine compare.`,
		},
		{
			name: "demo", run: demo,
			short: "start a host, ask it one question that needs a tool, stop",
			long: `Demo starts a host on a free port with a temporary SQLite file, asks the
built-in demo model a question whose answer needs the calculator plugin, prints
each event of the stream and the final text, and stops. It reads no
configuration; the plugins are those of build/wasm, which make build makes.`,
		},
		{
			name: "version", run: version,
			short: "print version, commit and platform",
			long: `Version prints the version, the commit if it is known, the Go release and the
platform.`,
		},
	}
}

// help prints the help of the command or group that words name.
func help(w io.Writer, words []string) error {
	name := strings.Join(words, " ")
	var listed []*command
	for _, c := range commands() {
		if c.name == name {
			c.help(w)
			return nil
		}
		if name == "" || strings.HasPrefix(c.name, name+" ") {
			listed = append(listed, c)
		}
	}
	if len(listed) == 0 {
		return unknownCommand(name)
	}
	if name == "" {
		fmt.Fprint(w, "Casemate hosts queued LLM requests whose tools and policies are WebAssembly.\n\n")
	}
	fmt.Fprint(w, "Usage:\n\n")
	for _, c := range listed {
		fmt.Fprintf(w, "  %-42s %s\n", strings.TrimSpace("casemate "+c.name+" "+c.args), c.short)
	}
	fmt.Fprint(w, "\nRun casemate help COMMAND for more about one of them.\n")
	return nil
}
