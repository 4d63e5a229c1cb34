package plugins

import (
	"errors"
	"fmt"
	"strings"

	"github.com/casemate/casemate/plugins/internal/abi/native"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/sdk/abi"
)

// ErrRefused is wrapped by Load when the module is at fault: another try gives
// the same answer.
var ErrRefused = errors.New("refused")

// maxBinary is the largest module, in bytes.
const maxBinary = 16 << 20

// The bounds of tables, whose memory is the host's and not the guest's, in
// elements of eight bytes each. With them, and with that of the rewriter for
// what grows, the tables of an instance never take more than 16 MiB.
const (
	maxTables = 16      // how many
	maxTable  = 1 << 20 // at the start, all of them together
)

// The ABIs that a module may be built for. Only native/1 can be loaded.
const (
	ABINative      = "native/1"
	ABIExtism      = "extism/1"
	ABIWasiCommand = "wasi-command/1"
	ABIProxyWasm   = "proxy-wasm"
	ABIComponent   = "component"
	ABIUnknown     = "unknown"
)

// extismModule begins the names of Extism's import modules.
const extismModule = "extism:host/"

// recognise tells what a module was built for by its imports and exports.
func recognise(m *wasmbin.Module) string {
	if _, ok := m.Export(abi.ExportMarker); ok {
		return ABINative
	}
	for _, i := range m.Imports {
		switch {
		case i.Module == abi.Module:
			return ABINative
		case strings.HasPrefix(i.Module, extismModule):
			return ABIExtism
		case i.Module == wasmEnv && strings.HasPrefix(i.Name, "proxy_"):
			return ABIProxyWasm
		}
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, "proxy_abi_version_") || strings.HasPrefix(e.Name, "proxy_on_") {
			return ABIProxyWasm
		}
	}
	if e, ok := m.Export(commandExport); ok && e.Kind == wasmbin.Func {
		return ABIWasiCommand
	}
	return ABIUnknown
}

const (
	wasmEnv       = "env"
	commandExport = "_start"
)

// howTo tells how to build what can be loaded.
const howTo = "build it with an SDK of casemate " +
	"(in Go: GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared)"

// parse reads a module's declarations. Errors wrap ErrRefused.
func parse(wasm []byte) (*wasmbin.Module, error) {
	if len(wasm) > maxBinary {
		return nil, refused("the file has %d bytes, more than %d: strip debug information", len(wasm), maxBinary)
	}
	m, err := wasmbin.Parse(wasm)
	switch {
	case errors.Is(err, wasmbin.ErrNotWasm):
		return nil, refused("%w: want a core module (.wasm)", err)
	case errors.Is(err, wasmbin.ErrComponent):
		return nil, refused("%w: components are not supported; %s", err, howTo)
	case err != nil:
		return nil, refused("%w", err)
	}
	return m, nil
}

// admit checks all that can be checked of a module before it is compiled.
// Errors wrap ErrRefused.
func (m *Manager) admit(mod *wasmbin.Module) error {
	switch recognise(mod) {
	case ABIExtism:
		return refused("an Extism plugin: extism/1 is not supported by this version; %s", howTo)
	case ABIWasiCommand:
		return refused("a WASI command (it exports %s): wasi-command/1 is not supported by this version; %s", commandExport, howTo)
	case ABIProxyWasm:
		return refused("a proxy-wasm filter: proxy-wasm is not supported; %s", howTo)
	}
	if err := m.checkImports(mod.Imports); err != nil {
		return err
	}
	if err := native.CheckExports(mod); err != nil {
		return refused("%w; %s", err, howTo)
	}
	if len(mod.Memories) != 1 || mod.Memories[0].Shared {
		return refused("it declares %d memories: want exactly one, not shared", len(mod.Memories))
	}
	return checkTables(mod.Tables)
}

func checkTables(tables []wasmbin.Limits) error {
	if len(tables) > maxTables {
		return refused("it declares %d tables, more than %d", len(tables), maxTables)
	}
	total := uint64(0)
	for _, t := range tables {
		total += min(t.Min, maxTable+1)
	}
	if total > maxTable {
		return refused("its tables start with more than %d elements", maxTable)
	}
	return nil
}

// tableBytes returns how many bytes of the host's the tables of one instance
// take.
func tableBytes(tables []wasmbin.Limits) (n uint64) {
	const element = 8
	for _, t := range tables {
		n += t.Min * element
	}
	return n
}

// maxListed bounds how many imports one message names.
const maxListed = 8

func (m *Manager) checkImports(imports []wasmbin.Import) error {
	var unknown []string
	for _, i := range imports {
		name := label(i.Module) + "." + label(i.Name)
		if i.Kind != wasmbin.Func {
			return refused("it imports %s %s: only functions can be imported", i.Kind, name)
		}
		want, ok := m.offers[i.Module][i.Name]
		switch {
		case !ok:
			unknown = append(unknown, name)
		case i.Sig.String() != want.String():
			return refused("import %s has signature %s: want %s", name, i.Sig, want)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	more := ""
	if n := len(unknown) - maxListed; n > 0 {
		unknown, more = unknown[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	return refused("unknown imports: %s%s: this version offers %s, WASI preview1 and AssemblyScript's env",
		strings.Join(unknown, ", "), more, abi.Module)
}

// label makes a name from a module fit for a message.
func label(name string) string {
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return strings.Trim(fmt.Sprintf("%q", name), `"`)
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}
