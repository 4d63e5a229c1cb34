package rewrite_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

func with(sections ...[]byte) []byte { return append(w.Header(), w.Seq(sections...)...) }

func u32(n uint64) []byte { return binary.AppendUvarint(nil, n) }

func refused(t *testing.T, name string, wasm []byte, kind error, text string) {
	t.Helper()
	_, err := rewrite.Rewrite(wasm)
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s = %v, want %v with %q", name, err, kind, text)
	}
}

func TestRewriteRefusesBinaries(t *testing.T) {
	types, funcs := w.Section(1, []byte{1, 0x60, 0, 0}), w.Section(3, []byte{1, 0})
	code := w.Section(10, []byte{1, 2, 0, 0x0b})
	malformed, invalid, unsupported := rewrite.ErrMalformed, rewrite.ErrInvalid, rewrite.ErrUnsupported
	for _, tt := range []struct {
		name string
		wasm []byte
		kind error
		text string
	}{
		{"no binary", []byte("PK"), wasmbin.ErrNotWasm, ""},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), wasmbin.ErrComponent, ""},
		{"too large", make([]byte, 16<<20+1), rewrite.ErrTooLarge, "16777216"},
		{"section cut off", with([]byte{1, 9, 0}), malformed, "byte 8"},
		{"order", with(w.Section(4, []byte{0}), types), malformed, "unexpected section 1 at byte 11"},
		{"twice", with(types, types), malformed, "unexpected section"},
		{"unknown section", with(w.Section(14, nil)), malformed, "section id 14"},
		{"left over", with(w.Section(1, []byte{0, 0})), malformed, "section size mismatch"},
		{"long number", with(w.Section(1, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0})), malformed, "too long at byte 15"},
		{"large number", with(w.Section(1, []byte{0x80, 0x80, 0x80, 0x80, 0x70})), malformed, "too large"},
		{"custom name", with(w.Section(0, []byte{1, 0xff})), malformed, "UTF-8"},
		{"no code", with(types, funcs), malformed, "inconsistent lengths"},
		{"no functions", with(types, code), malformed, "inconsistent lengths"},
		{"data count", with(w.Section(12, []byte{1})), malformed, "data count"},
		{"type form", with(w.Section(1, []byte{1, 0x61})), malformed, "type form"},
		{"gc types", with(w.Section(1, []byte{1, 0x5f, 0})), unsupported, "garbage collection"},
		{"typed references", with(w.Section(4, []byte{1, 0x63, 0, 0, 0})), unsupported, "typed references"},
		{"table initialiser", with(w.Section(4, []byte{1, 0x40, 0, 0x70, 0, 0, 0xd0, 0x70, 0x0b})), unsupported, "initialiser"},
		{"type of a function", with(types, w.Section(3, []byte{1, 1})), invalid, "unknown type 1 at byte 17"},
		{"shared memory", with(w.Section(5, []byte{1, 3, 1, 1})), unsupported, "threads"},
		{"memory64", with(w.Section(5, []byte{1, 4, 1})), unsupported, "memory64"},
		{"two memories", with(w.Section(5, []byte{2, 0, 1, 0, 1})), unsupported, "multiple memories"},
		{"memory limits", with(w.Section(5, []byte{1, 1, 2, 1})), invalid, "minimum"},
		{"memory size", with(w.Section(5, []byte{1, 0, 0x81, 0x80, 4})), invalid, "65536 pages"},
		{"table limits", with(w.Section(4, []byte{1, 0x70, 1, 2, 1})), invalid, "minimum"},
		{"table bomb", with(w.Section(4, append([]byte{1, 0x70, 0}, u32(1<<27)...))), rewrite.ErrTooLarge, "table elements"},
		{"tags", with(w.Section(13, []byte{0})), unsupported, "exceptions"},
		{"imported tag", with(w.Section(2, []byte{1, 1, 'a', 0, 4, 0, 0})), unsupported, "exceptions"},
		{"import without a module name", with(w.Section(2, []byte{1, 0, 1, 'a', 0, 0})), unsupported, "module name"},
		{"vector constant in two bytes", with(w.Section(6, append([]byte{1, 0x7b, 0, 0xfd, 0x8c, 0}, append(make([]byte, 16), 0x0b)...))), invalid, "constant expression"},
		{"kind of import", with(w.Section(2, []byte{1, 1, 'a', 0, 9})), malformed, "import kind"},
		{"mutability", with(w.Section(6, []byte{1, 0x7f, 4})), malformed, "mutability"},
		{"extended constants", with(w.Section(6, []byte{1, 0x7f, 0, 0x41, 1, 0x41, 1, 0x6a, 0x0b})), unsupported, "extended constant"},
		{"not constant", with(w.Section(6, []byte{1, 0x7f, 0, 0x20, 0, 0x0b})), invalid, "constant expression required"},
		{"type of a constant", with(w.Section(6, []byte{1, 0x7f, 0, 0x42, 0, 0x0b})), invalid, "type mismatch"},
		{"two constants", with(w.Section(6, []byte{1, 0x7f, 0, 0x41, 0, 0x41, 0, 0x0b})), invalid, "type mismatch"},
		{"own global in a constant", with(w.Section(6, []byte{2, 0x7f, 0, 0x41, 0, 0x0b, 0x7f, 0, 0x23, 0, 0x0b})), invalid, "unknown global 0"},
		{"export twice", with(w.Section(5, []byte{1, 0, 1}), w.Section(7, []byte{2, 1, 'a', 2, 0, 1, 'a', 2, 0})), invalid, "duplicate export"},
		{"kind of export", with(w.Section(7, []byte{1, 0, 9, 0})), malformed, "export kind"},
		{"start with results", with(w.Section(1, []byte{1, 0x60, 0, 1, 0x7f}), funcs, w.Section(8, []byte{0})), invalid, "start function"},
		{"kind of elements", with(w.Section(9, []byte{1, 8})), malformed, "element segment kind"},
		{"elements without a table", with(w.Section(9, []byte{1, 0, 0x41, 0, 0x0b, 0})), invalid, "unknown table 0"},
		{"elements of another type", with(w.Section(4, []byte{1, 0x6f, 0, 1}), w.Section(9, []byte{1, 0, 0x41, 0, 0x0b, 0})), invalid, "type mismatch"},
		{"kind of data", with(w.Section(11, []byte{1, 3})), malformed, "data segment kind"},
		{"data without a memory", with(w.Section(11, []byte{1, 0, 0x41, 0, 0x0b, 0})), invalid, "unknown memory 0"},
		{"too many types", with(w.Section(1, u32(1<<20))), rewrite.ErrTooLarge, "types at byte 10"},
		{"too many functions", with(types, w.Section(3, u32(1<<20))), rewrite.ErrTooLarge, "functions"},
		{"too many parameters", with(w.Section(1, append([]byte{1, 0x60}, u32(5000)...))), rewrite.ErrTooLarge, "parameters"},
		{"too many locals", with(types, funcs, w.Section(10, append([]byte{1, 6, 1}, append(u32(1<<24), 0x7f, 0x0b)...))), rewrite.ErrTooLarge, "locals"},
		{"large body", with(types, funcs, w.Section(10, append([]byte{1}, u32(1<<21)...))), rewrite.ErrTooLarge, "bytes of code"},
	} {
		refused(t, tt.name, tt.wasm, tt.kind, tt.text)
	}
}

// TestIndexForgery names our import and globals, and whatever else is one
// beyond an index space.
func TestIndexForgery(t *testing.T) {
	globals := map[string][]byte{
		"global.get": w.Seq(w.GlobalGet(1), w.Drop), "global.set": w.Seq(w.I32(0), w.GlobalSet(1)),
		"call": w.Call(2), "ref.func": w.Seq(w.RefFunc(2), w.Drop),
		"call_indirect type": w.Seq(w.I32(0), w.CallIndirect(1)), "call_indirect table": w.Seq(w.I32(0), []byte{0x11, 0, 1}),
		"local.get": w.Seq(w.LocalGet(2), w.Drop), "local.set": w.Seq(w.I32(0), w.LocalSet(2)), "local.tee": w.Seq(w.I32(0), w.LocalTee(2), w.Drop),
		"br": w.Br(1), "br_if": w.Seq(w.I32(0), w.BrIf(1)), "br_table": w.Seq(w.I32(0), w.BrTable(0, 1)),
		"table.get": w.Seq(w.I32(0), []byte{0x25, 1}, w.Drop), "table.size": w.Seq([]byte{0xfc, 16, 1}, w.Drop), "table.grow": w.Seq(w.TableGrow(1, 0), w.Drop),
		"elem.drop": {0xfc, 13, 1}, "data.drop": {0xfc, 9, 1},
		"table.init": w.Seq(w.I32(0), w.I32(0), w.I32(0), []byte{0xfc, 12, 1, 0}), "memory.init": w.Seq(w.I32(0), w.I32(0), w.I32(0), []byte{0xfc, 8, 1, 0}),
		"block type": w.Seq([]byte{0x02, 1}, w.End),
	}
	for name, code := range globals {
		for _, before := range [][]byte{nil, w.Unreachable} {
			var m w.Module
			m.Import("env", "f", w.Sig("", ""))
			m.Export("f", m.Func(w.Sig("", ""), before, code))
			m.Table(1).Memory(1).Elem([]byte{1, 0, 0}).DataRaw([]byte{1, 0}).DataCount().Global(0)
			refused(t, name, m.Bytes(), rewrite.ErrInvalid, "unknown ")
		}
	}
	for name, forge := range map[string]func(m *w.Module, f uint32){
		"export": func(m *w.Module, f uint32) { m.Export("x", f+1) },
		"table":  func(m *w.Module, _ uint32) { m.ExportRaw("x", 1, 1) },
		"memory": func(m *w.Module, _ uint32) { m.ExportRaw("x", 2, 1) },
		"global": func(m *w.Module, _ uint32) { m.ExportRaw("x", 3, 1) },
		"start":  func(m *w.Module, f uint32) { m.Start(f + 1) },
		"elem":   func(m *w.Module, f uint32) { m.Elem([]byte{1, 0, 1, byte(f + 1)}) },
		"const":  func(m *w.Module, f uint32) { m.GlobalRaw([]byte{0x70, 0, 0xd2, byte(f + 1), 0x0b}) },
	} {
		var m w.Module
		f := m.Func(w.Sig("", ""))
		m.Table(1).Memory(1).Global(0)
		forge(&m, f)
		refused(t, name, m.Bytes(), rewrite.ErrInvalid, "unknown ")
	}
}

func TestRewriteRefusesCode(t *testing.T) {
	invalid, unsupported, malformed, large := rewrite.ErrInvalid, rewrite.ErrUnsupported, rewrite.ErrMalformed, rewrite.ErrTooLarge
	nest := func(op []byte, n int) []byte {
		return w.Seq(bytes.Repeat(op, n), bytes.Repeat(w.End, n))
	}
	var choose [][]byte // many locals, many places where ways meet
	for i := range uint32(600) {
		choose = append(choose, w.I32(1), w.LocalSet(i), w.Block, w.LocalGet(0), w.BrIf(0), w.End, w.Block, w.LocalGet(0), w.BrIf(0), w.End)
	}
	var keep [][]byte // many operands under many blocks
	keep = append(keep, bytes.Repeat(w.LocalGet(0), 1000), bytes.Repeat(w.Seq(w.LocalGet(0), w.BrIf(0)), 3000), bytes.Repeat(w.Drop, 1000))
	jumps := w.Seq(w.LocalGet(0), w.BrTable(make([]uint32, 12000)...))
	inner := w.Seq(bytes.Repeat(w.Loop, 100), bytes.Repeat(w.Seq(w.LocalGet(0), w.BrIf(0), w.End), 100))
	for _, tt := range []struct {
		name string
		code []byte
		kind error
		text string
	}{
		{"tail call", []byte{0x12, 0}, unsupported, "tail calls (opcode 0x12)"},
		{"indirect tail call", []byte{0x13, 0, 0}, unsupported, "tail calls"},
		{"call_ref", []byte{0x14, 0}, unsupported, "typed references"},
		{"throw", []byte{0x08, 0}, unsupported, "exceptions"},
		{"try_table", []byte{0x1f, 0x40, 0}, unsupported, "exceptions"},
		{"atomics", []byte{0xfe, 0, 2, 0}, unsupported, "threads"},
		{"gc", []byte{0xfb, 0}, unsupported, "garbage collection"},
		{"relaxed simd", []byte{0xfd, 0x80, 2}, unsupported, "relaxed SIMD"},
		{"vector opcode in two bytes", w.Seq([]byte{0xfd, 0x8c, 0}, make([]byte, 16), w.Drop), unsupported, "more bytes than it needs"},
		{"vector opcode in three bytes", w.Seq([]byte{0xfd, 12}, make([]byte, 16), []byte{0xfd, 0xe0, 0x81, 0}, w.Drop), unsupported, "more bytes than it needs"},
		{"select counted in two bytes", w.Seq(w.I32(0), w.I32(0), w.I32(0), []byte{0x1c, 0x81, 0, 0x7f}, w.Drop), unsupported, "more bytes than needed"},
		{"select of two types", w.Seq(w.I32(0), w.I32(0), w.I32(0), []byte{0x1c, 2, 0x7f, 0x7f}, w.Drop), invalid, "arity"},
		{"multiple memories", w.Seq(w.I32(0), []byte{0x28, 0x42, 0, 0}), unsupported, "multiple memories"},
		{"unknown opcode", []byte{0xc5}, malformed, "illegal opcode 0xc5"},
		{"unknown 0xfc", []byte{0xfc, 18}, malformed, "illegal opcode 0xfc 0x12"},
		{"unknown simd", []byte{0xfd, 0x9a, 1}, malformed, "illegal opcode 0xfd 0x9a"},
		{"else without if", w.Else, malformed, "else"},
		{"empty stack", w.Drop, invalid, "type mismatch"},
		{"type", w.Seq(w.I64(0), w.I32Eqz, w.Drop), invalid, "i32 expected, got i64"},
		{"left over", w.I32(0), invalid, "remaining"},
		{"left over after br", w.Seq(w.Block, w.I32(0), w.Br(0), w.I32(0), w.End), invalid, "remaining"},
		{"operand of the outer block", w.Seq(w.I32(0), w.Block, w.Drop, w.End), invalid, "type mismatch"},
		{"if with a result and no else", w.Seq(w.I32(0), []byte{0x04, 0x7f}, w.I32(0), w.End, w.Drop), invalid, "without an else"},
		{"alignment", w.Seq(w.I32(0), []byte{0x28, 3, 0}, w.Drop), invalid, "alignment"},
		{"lane", w.Seq([]byte{0xfd, 12}, make([]byte, 16), []byte{0xfd, 0x15, 16}, w.Drop), invalid, "lane"},
		{"immutable global", w.Seq(w.I32(0), w.GlobalSet(1)), invalid, "immutable"},
		{"undeclared reference", w.Seq(w.RefFunc(0), w.Drop), invalid, "undeclared"},
		{"select of references", w.Seq([]byte{0xd0, 0x70, 0xd0, 0x70}, w.I32(0), []byte{0x1b}, w.Drop), invalid, "select"},
		{"data count", []byte{0xfc, 9, 0}, malformed, "data count section required"},
		{"memory index", w.Seq([]byte{0x3f, 1}, w.Drop), malformed, "zero byte"},
		{"nesting", nest(w.Block, 1<<14+1), large, "nested blocks"},
		{"nested loops", nest(w.Loop, 300), large, "nested loops"},
		{"br_table", w.Seq(w.I32(0), []byte{0x0e}, u32(1<<17)), large, "targets"},
		{"values to choose", w.Seq(choose...), large, "values to choose"},
		{"basic blocks", bytes.Repeat(w.Seq(w.LocalGet(0), w.BrIf(0)), 1<<14), large, "basic blocks"},
		{"bulk operations", bytes.Repeat(w.Seq(w.I32(0), w.MemoryGrow, w.Drop), 1<<12), large, "basic blocks"},
		{"values to keep", w.Seq(keep...), large, "values to keep"},
		{"values to keep for a br_table", w.Seq(keep[0], w.Block, jumps, w.End, keep[2]), large, "values to keep"},
		{"values to keep in loops", w.Seq(keep[0], inner, keep[2]), large, "values to keep"},
	} {
		var m w.Module
		m.FuncRaw(m.Type(w.Sig("", "")), w.Seq([]byte{1}, u32(700), []byte{0x7f}, tt.code, w.End))
		m.Memory(1).Table(1).Global(0)
		m.GlobalRaw([]byte{0x7f, 0, 0x41, 0, 0x0b})
		refused(t, tt.name, m.Bytes(), tt.kind, tt.text)
	}
}

// TestOffsets: an error says where in the file the instruction is.
func TestOffsets(t *testing.T) {
	var m w.Module
	m.Func(w.Sig("", ""), w.I32(0), w.Drop, w.Drop)
	wasm := m.Bytes()
	at := bytes.LastIndex(wasm, w.Seq(w.Drop, w.End))
	if _, err := rewrite.Rewrite(wasm); err == nil || !strings.HasSuffix(err.Error(), "at byte "+strconv.Itoa(at)) {
		t.Errorf("got %v, want byte %d", err, at)
	}
}

// TestCutOff: no prefix of a module is accepted.
func TestCutOff(t *testing.T) {
	wasm := full().Bytes()
	for n := 9; n < len(wasm); n++ {
		_, err := rewrite.Rewrite(wasm[:n])
		if err == nil && !complete(wasm, n) {
			t.Errorf("the first %d of %d bytes are accepted", n, len(wasm))
		}
	}
}

// complete says whether a module may end after n bytes: between sections, but
// not between those of functions and their code.
func complete(wasm []byte, n int) bool {
	r := wasmbin.NewReader(wasm[8:], 8)
	functions := false
	for r.Len() > 0 && r.Offset() < n {
		id := r.Byte()
		r.Bytes(r.U32())
		functions = functions && id != 10 || id == 3
	}
	return r.Offset() == n && !functions
}

// TestOperandBomb: a call of two bytes gives a thousand operands.
func TestOperandBomb(t *testing.T) {
	var m w.Module
	f := m.Import("env", "f", w.Sig("", strings.Repeat("i", 1000)))
	m.Func(w.Sig("", ""), bytes.Repeat(w.Call(f), 40000))
	refused(t, "results", m.Bytes(), rewrite.ErrTooLarge, "operands")
}
