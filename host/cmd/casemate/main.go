// Command casemate runs a host, checks its configuration and packs plugins. It
// holds flags, signals and exit codes; everything else is package host's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

func main() {
	// net/http tells the standard logger what servers sent that it could not
	// use: text that a tenant's plugin may have asked for. Nothing of ours
	// logs there.
	log.SetOutput(io.Discard)
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
	queueOptions
}

// queueOptions are those of the queue commands.
type queueOptions struct {
	store   string
	tenant  string
	model   string
	limit   int
	backlog int
	quick   bool
}

// commands are all of them, in the order of the help.
func commands() []*command {
	all := []*command{
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
plugins, policies and what tenants may use of plugins. What else has changed
needs a restart, and the log says so. A configuration that is wrong leaves everything as it was.

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
	}
	all = append(all, kitCommands()...)
	all = append(all, queueCommands()...)
	return append(all, []*command{
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
	}...)
}

// usageWidth is the room for the usage of a command; a longer one has a line
// of its own.
const usageWidth = 42

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
		usage := strings.TrimSpace("casemate " + c.name + " " + c.args)
		if len(usage) > usageWidth {
			fmt.Fprintf(w, "  %s\n", usage)
			usage = ""
		}
		fmt.Fprintf(w, "  %-*s %s\n", usageWidth, usage, c.short)
	}
	fmt.Fprint(w, "\nRun casemate help COMMAND for more about one of them.\n")
	return nil
}
