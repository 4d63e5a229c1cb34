// Command peers measures a call of a plugin against the other ways to call
// code: the same guest on wazero and wasmtime, one of the same work on Extism,
// a POST over loopback HTTP and a Go function. Everything runs in one process
// and in turns, so that the ratios hold on a machine that is not quiet. It
// prints one line a goal,
//
//	bench NAME value=… goal=… met|missed
//
// then tables in Markdown. It asserts nothing: a missed goal is a line, not a
// failure.
package main

import (
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
)

func main() {
	wasm := flag.String("wasm", "build/wasm/bench", "directory of the built guests")
	rounds := flag.Int("rounds", 15, "rounds, of which medians are taken")
	only := flag.String("only", "", "parts to run, separated by commas: calls, payloads, scaling, fuel, exact, stop, idle")
	idle := flag.String("measure-idle", "", "print the memory of an idle instance, HOST/GUEST, and end")
	serving := flag.Bool("serve", false, "be the HTTP server that a call is compared with")
	flag.Parse()
	var err error
	switch {
	case *serving:
		err = serve()
	case *idle != "":
		err = printIdle(*wasm, *idle)
	default:
		err = run(*wasm, *rounds, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(wasm string, rounds int, only string) (err error) {
	guests, missing, err := readGuests(wasm)
	if err != nil {
		return err
	}
	b := &bench{rounds: rounds, report: &report{out: os.Stdout}, guests: guests, wasm: wasm, peers: map[string]peer{}}
	defer func() {
		if closing := b.close(); err == nil {
			err = closing
		}
	}()
	parts := []struct {
		name string
		run  func() error
	}{
		{"calls", b.benchCalls},
		{"payloads", b.benchPayloads},
		{"scaling", b.benchScaling},
		{"fuel", b.benchFuel},
		{"exact", b.benchExact},
		{"stop", b.benchStop},
		{"idle", b.benchIdle},
	}
	ran := 0
	for _, p := range parts {
		if only != "" && !strings.Contains(","+only+",", ","+p.name+",") {
			continue
		}
		if err := p.run(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		ran++
	}
	if ran == 0 {
		return fmt.Errorf("no part is called %s", only)
	}
	b.report.tables = append([]string{conditions()}, b.report.tables...)
	b.report.details()
	if len(missing) > 0 {
		fmt.Printf("\nNot built, so not measured: %s.\n", strings.Join(missing, ", "))
	}
	return nil
}

// conditions says what the figures are of.
func conditions() string {
	load := "unknown"
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(data), " ")
	}
	var with []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			switch d.Path {
			case "github.com/tetratelabs/wazero", "github.com/extism/go-sdk", "github.com/bytecodealliance/wasmtime-go/v39":
				with = append(with, path.Base(strings.TrimSuffix(d.Path, "/v39"))+" "+d.Version)
			}
		}
	}
	return fmt.Sprintf("%d processors, %s/%s, %s, %s; load of the last minute %s. Read the ratios: all rows are of the same run.\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), strings.Join(with, ", "), load)
}
