package native

import (
	"errors"
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/sdk/abi"
)

// ErrContract is wrapped when a module lacks what native/1 wants of it, or has
// it in another form.
var ErrContract = errors.New("native/1 contract")

var (
	entrySig = wasmbin.Signature{Results: []wasmbin.ValType{wasmbin.I32}}
	initSig  = wasmbin.Signature{}
)

// CheckExports checks what every module must export, and the form of what it
// may. The exports of kinds are checked by CheckEntry, once its descriptor is
// known. Errors wrap ErrContract and say what is wanted.
func CheckExports(m *wasmbin.Module) error {
	mem, ok := m.Export(abi.ExportMemory)
	if !ok || mem.Kind != wasmbin.Memory {
		return fmt.Errorf("%w: no memory is exported as %q", ErrContract, abi.ExportMemory)
	}
	for _, name := range []string{abi.ExportMarker, abi.ExportDescribe} {
		if err := CheckEntry(m, name); err != nil {
			return err
		}
	}
	if _, ok := m.Export(abi.ExportOnRestore); ok {
		if err := CheckEntry(m, abi.ExportOnRestore); err != nil {
			return err
		}
	}
	if _, ok := m.Export(abi.ExportInitialize); ok {
		return checkFunc(m, abi.ExportInitialize, initSig)
	}
	return nil
}

// CheckEntry checks that m exports a function () → i32 with the given name.
// Errors wrap ErrContract.
func CheckEntry(m *wasmbin.Module, name string) error { return checkFunc(m, name, entrySig) }

func checkFunc(m *wasmbin.Module, name string, want wasmbin.Signature) error {
	e, ok := m.Export(name)
	switch {
	case !ok:
		return fmt.Errorf("%w: export %q is missing: want a function %s", ErrContract, name, want)
	case e.Kind != wasmbin.Func:
		return fmt.Errorf("%w: export %q is a %s: want a function %s", ErrContract, name, e.Kind, want)
	case e.Sig.String() != want.String():
		return fmt.Errorf("%w: export %q has signature %s: want %s", ErrContract, name, e.Sig, want)
	}
	return nil
}
