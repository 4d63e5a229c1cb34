package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/casemate/casemate/host"
)

// pluginPack writes the descriptor of a module into it.
func pluginPack(ctx context.Context, a app, o options, args []string) error {
	file := args[0]
	wasm, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	packed, err := host.Pack(ctx, wasm)
	if err != nil {
		lastWords(a.stderr, err)
		return fmt.Errorf("%s: %w", file, err)
	}
	out := o.out
	if out == "" {
		out = file
	}
	if err := replace(out, packed); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s: packed, %d bytes\n", out, len(packed))
	return nil
}

// lastWords shows what a guest said before it failed to load: its author is
// at the terminal.
func lastWords(w io.Writer, err error) {
	var load *host.LoadError
	if !errors.As(err, &load) || load.GuestText == "" {
		return
	}
	for line := range strings.Lines(load.GuestText) {
		fmt.Fprintf(w, "guest: %s\n", printable(strings.TrimRight(line, "\n")))
	}
}

// replace writes a file as a whole or not at all: a host may be watching it.
func replace(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".casemate-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// pluginInspect shows a module without running it.
func pluginInspect(_ context.Context, a app, o options, args []string) error {
	wasm, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	seen, err := host.Inspect(wasm)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if o.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(seen); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		row := func(name, format string, values ...any) {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(fmt.Sprintf(format, values...)))
		}
		row("digest", "%s", seen.Digest)
		row("size", "%d bytes", seen.Size)
		row("abi", "%s", seen.ABI)
		if d := seen.Packed; d != nil {
			row("plugin", "%s %s: %s", d.Name, d.Version, d.Description)
			row("kinds", "%s", strings.Join(d.Kinds, ", "))
			row("wants", "%s", orNothing(strings.Join(d.Capabilities, ", ")))
			for _, t := range d.Tools {
				row("tool", "%s (%s): %s", t.Name, t.Effects, t.Description)
			}
		} else if seen.Problem == "" {
			row("plugin", "not packed: casemate plugin pack writes its descriptor into it")
		}
		for _, m := range seen.Memory {
			row("memory", "from %d bytes", m.Min)
		}
		for _, s := range seen.Imports {
			row("import", "%s.%s %s %s", s.Module, s.Name, s.Kind, s.Signature)
		}
		for _, s := range seen.Exports {
			row("export", "%s %s %s", s.Name, s.Kind, s.Signature)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if seen.Problem != "" {
		return fmt.Errorf("%s: its descriptor: %s", args[0], seen.Problem)
	}
	return nil
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// printable makes a module's own words fit for a terminal and for one row.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
}
