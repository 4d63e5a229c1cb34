package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

// Pack loads a module, with all the checks of Load, and returns it with its
// descriptor as canonical JSON in custom section abi.Section, in place of one
// that it had. The same module and descriptor give the same bytes. A module
// that Load would refuse is a *LoadError.
func Pack(ctx context.Context, wasm []byte) (_ []byte, err error) {
	m, err := New(ctx, Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	p, err := m.load(ctx, "pack", wasm, false)
	if err != nil {
		return nil, loadError("pack", err)
	}
	canonical, err := abi.CanonicalJSON(p.manifest)
	if err != nil {
		return nil, fmt.Errorf("plugins: pack: %w", err)
	}
	packed, err := manifest.WriteSection(wasm, canonical)
	if err != nil {
		return nil, fmt.Errorf("plugins: pack: %w", err)
	}
	if len(packed) > maxBinary {
		return nil, fmt.Errorf("plugins: pack: %w", refused("packed it has %d bytes, more than %d", len(packed), maxBinary))
	}
	return packed, nil
}

// Inspection is what a module shows without being run.
type Inspection struct {
	Digest string `json:"digest"` // "sha256:<hex>" of the file
	Size   int    `json:"size"`   // bytes
	// ABI is one of the ABI constants. A component shows nothing else.
	ABI string `json:"abi"`
	// Packed is the descriptor in custom section abi.Section, nil without one.
	// It is what the file says; only Load compares it with describe.
	Packed *abi.Descriptor `json:"packed,omitempty"`
	// Problem tells why there is a section but no Packed.
	Problem string        `json:"problem,omitempty"`
	Imports []Symbol      `json:"imports,omitempty"`
	Exports []Symbol      `json:"exports,omitempty"`
	Memory  []MemoryLimit `json:"memory,omitempty"` // one in a module that can be loaded
	Start   bool          `json:"start,omitempty"`  // runs code as soon as it is instantiated
}

// Symbol is one import or export.
type Symbol struct {
	Module    string `json:"module,omitempty"` // of an import
	Name      string `json:"name"`
	Kind      string `json:"kind"`                // "func", "memory", "table", "global", "tag"
	Signature string `json:"signature,omitempty"` // of a function: "(i32, i32) → i32"
}

// MemoryLimit is the size of a memory as the module declares it, in bytes.
type MemoryLimit struct {
	Min uint64  `json:"min"`
	Max *uint64 `json:"max,omitempty"` // nil: none declared
}

// Inspect reads a file without running any of it. The error tells why it is
// not a module that can be read; a module that only cannot be loaded is none.
func Inspect(wasm []byte) (Inspection, error) {
	sum := sha256.Sum256(wasm)
	out := Inspection{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(wasm)}
	mod, err := parse(wasm)
	switch {
	case errors.Is(err, wasmbin.ErrComponent):
		out.ABI = ABIComponent
		return out, nil
	case err != nil:
		return Inspection{}, fmt.Errorf("plugins: inspect: %w", err)
	}
	out.ABI = recognise(mod)
	out.Start = mod.Start
	for _, i := range mod.Imports {
		out.Imports = append(out.Imports, symbol(i.Module, i.Name, i.Kind, i.Sig))
	}
	for _, e := range mod.Exports {
		out.Exports = append(out.Exports, symbol("", e.Name, e.Kind, e.Sig))
	}
	for _, l := range mod.Memories {
		out.Memory = append(out.Memory, memoryLimit(l))
	}
	out.readPacked(wasm)
	return out, nil
}

func (i *Inspection) readPacked(wasm []byte) {
	data, ok, err := manifest.ReadSection(wasm)
	if err == nil && !ok {
		return
	}
	if err == nil {
		var d abi.Descriptor
		if d, err = manifest.Parse(data); err == nil {
			i.Packed = &d
			return
		}
	}
	i.Problem = err.Error()
}

func symbol(module, name string, kind wasmbin.Kind, sig wasmbin.Signature) Symbol {
	s := Symbol{Module: module, Name: name, Kind: kind.String()}
	if kind == wasmbin.Func {
		s.Signature = sig.String()
	}
	return s
}

// memoryPage is the unit of memory sizes in a module, in bytes.
const memoryPage = 64 << 10

func memoryLimit(l wasmbin.Limits) MemoryLimit {
	out := MemoryLimit{Min: l.Min * memoryPage}
	if l.HasMax {
		most := l.Max * memoryPage
		out.Max = &most
	}
	return out
}
