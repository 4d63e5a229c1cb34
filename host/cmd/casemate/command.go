package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// command is one command of the program.
type command struct {
	name  string // one or two words
	args  string // as the usage line shows them
	nargs int    // how many arguments it wants besides its flags
	flags []flagDef
	short string
	long  string
	run   func(ctx context.Context, a app, o options, args []string) error
}

// flagDef is one flag of a command. The name says which option it sets.
type flagDef struct {
	name string
	arg  string // what its value is called; "" for a switch
	text string
}

// usageError is a wrong command line.
type usageError struct {
	text string
	help string // the command that shows the right ones
}

func (e *usageError) Error() string { return e.text }

// find returns the command that args begin with, and the arguments after it. A
// group that is named alone, or asked for help, gives nil.
func find(args []string) (*command, []string, error) {
	group := false
	for _, c := range commands() {
		first, second, two := strings.Cut(c.name, " ")
		switch {
		case args[0] != first:
		case !two:
			return c, args[1:], nil
		case len(args) > 1 && args[1] == second:
			return c, args[2:], nil
		default:
			group = true
		}
	}
	switch {
	case group && (len(args) == 1 || asksHelp(args[1])):
		return nil, nil, nil
	case group:
		return nil, nil, unknownCommand(args[0] + " " + args[1])
	}
	return nil, nil, unknownCommand(args[0])
}

func unknownCommand(name string) error {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return &usageError{text: fmt.Sprintf("unknown command %q%s", name, suggest(name, "", names)), help: "casemate help"}
}

// flagSet binds the flags of c to o.
func (c *command) flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	for _, f := range c.flags {
		switch f.name {
		case "config":
			fs.StringVar(&o.config, f.name, "", f.text)
		case "store":
			fs.StringVar(&o.store, f.name, "", f.text)
		case "tenant":
			fs.StringVar(&o.tenant, f.name, "", f.text)
		case "model":
			fs.StringVar(&o.model, f.name, "", f.text)
		case "limit":
			fs.IntVar(&o.limit, f.name, 50, f.text)
		case "backlog":
			fs.IntVar(&o.backlog, f.name, 0, f.text)
		case "quick":
			fs.BoolVar(&o.quick, f.name, false, f.text)
		case "o":
			fs.StringVar(&o.out, f.name, "", f.text)
		case "json":
			fs.BoolVar(&o.json, f.name, false, f.text)
		case "cases":
			fs.StringVar(&o.cases, f.name, "", f.text)
		case "tool":
			fs.StringVar(&o.tool, f.name, "", f.text)
		case "input":
			fs.StringVar(&o.input, f.name, "", f.text)
		case "n":
			fs.IntVar(&o.calls, f.name, 1000, f.text)
		}
	}
	return fs
}

// parse sets o from the flags in args, which may stand before, between and
// after the other arguments; after "--" there are no more flags.
func (c *command) parse(o *options, args []string) (positional []string, wantsHelp bool, err error) {
	fs := c.flagSet(o)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			positional, args = append(positional, args...), nil
			continue
		case asksHelp(arg):
			return nil, true, nil
		case len(arg) < 2 || arg[0] != '-':
			positional = append(positional, arg)
			continue
		}
		if args, err = c.set(fs, arg, args); err != nil {
			return nil, false, err
		}
	}
	if len(positional) != c.nargs {
		return nil, false, c.wrong("want %s, got %d arguments", strings.TrimSpace("casemate "+c.name+" "+c.args), len(positional))
	}
	return positional, false, nil
}

// set sets the flag that arg names, from arg itself or from the first of rest,
// and returns what is left of rest.
func (c *command) set(fs *flag.FlagSet, arg string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
	f := fs.Lookup(name)
	if f == nil {
		return nil, c.wrong("unknown flag %s%s", "-"+strings.TrimPrefix(arg, "-"), suggest(name, "--", c.flagNames()))
	}
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		if !given {
			value = "true"
		}
	} else if !given {
		if len(rest) == 0 {
			return nil, c.wrong("flag --%s needs a value", name)
		}
		value, rest = rest[0], rest[1:]
	}
	if err := fs.Set(name, value); err != nil {
		return nil, c.wrong("flag --%s: %q: want %s", name, value, wanted(f))
	}
	return rest, nil
}

// wanted names the values of a flag that may refuse one.
func wanted(f *flag.Flag) string {
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return "true or false"
	}
	return "a number"
}

func (c *command) flagNames() []string {
	names := []string{"help"}
	for _, f := range c.flags {
		names = append(names, f.name)
	}
	return names
}

func (c *command) wrong(format string, args ...any) error {
	return &usageError{text: c.name + ": " + fmt.Sprintf(format, args...), help: "casemate help " + c.name}
}

// help prints all there is to know about c.
func (c *command) help(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s\n\n%s\n", strings.TrimSpace("casemate "+c.name+" "+c.args), c.long)
	if len(c.flags) > 0 {
		fmt.Fprint(w, "\nFlags:\n\n")
		for _, f := range c.flags {
			dashes := "--"
			if len(f.name) == 1 {
				dashes = "-"
			}
			fmt.Fprintf(w, "  %-16s %s\n", strings.TrimSpace(dashes+f.name+" "+f.arg), f.text)
		}
	}
}

func asksHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

// suggest returns ": did you mean …?" with the nearest of names, or nothing
// when none is near.
func suggest(got, prefix string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		if d := distance(got, n); d < least && d < len(n) {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s%s?", prefix, best)
}

// distance counts the bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
