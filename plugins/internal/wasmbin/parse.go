package wasmbin

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The numbers of the sections that Parse looks into.
const (
	secType     = 1
	secImport   = 2
	secFunction = 3
	secTable    = 4
	secMemory   = 5
	secExport   = 7
	secStart    = 8
	secLast     = 13
)

const (
	headerLen = 8
	// maxItems bounds each vector that Parse keeps: a declaration takes a few
	// bytes in the file and many times that in memory.
	maxItems = 1 << 16
)

// Parse reads the declarations of a binary. Its errors wrap ErrNotWasm,
// ErrComponent or ErrMalformed. What it returns is bounded by the size of wasm,
// whatever counts are written in it.
func Parse(wasm []byte) (*Module, error) {
	if err := CheckHeader(wasm); err != nil {
		return nil, err
	}
	p := parser{mod: &Module{}}
	var seen [secLast + 1]bool
	for r := NewReader(wasm[headerLen:], headerLen); r.Len() > 0; {
		at, id, size := r.Offset(), r.Byte(), r.U32()
		bodyAt := r.Offset()
		body := NewReader(r.Bytes(size), bodyAt)
		if err := r.Err(); err != nil {
			return nil, fmt.Errorf("section %d at byte %d: %w", id, at, err)
		}
		if id == 0 {
			continue
		}
		if id > secLast || seen[id] {
			return nil, fmt.Errorf("%w: section %d at byte %d is unknown or there twice", ErrMalformed, id, at)
		}
		seen[id] = true
		p.read(id, body)
		if err := body.Err(); err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
	}
	if err := p.resolve(); err != nil {
		return nil, err
	}
	return p.mod, nil
}

// CheckHeader says whether wasm begins like a core module. Errors wrap
// ErrNotWasm, ErrComponent or ErrMalformed.
func CheckHeader(wasm []byte) error {
	if len(wasm) < headerLen || !bytes.HasPrefix(wasm, []byte("\x00asm")) {
		return ErrNotWasm
	}
	version, layer := binary.LittleEndian.Uint16(wasm[4:]), binary.LittleEndian.Uint16(wasm[6:])
	switch {
	case layer == 1:
		return ErrComponent
	case layer != 0 || version != 1:
		return fmt.Errorf("%w: version %d, layer %d", ErrMalformed, version, layer)
	}
	return nil
}

// parser collects sections; names of functions are joined with their types at
// the end, since exports come by index.
type parser struct {
	mod       *Module
	types     []Signature
	importFns []uint32 // type index of each imported function
	funcs     []uint32 // type index of each function with code
	importIdx []int    // position in mod.Imports of each imported function
	exportFns []uint32 // function index of each export, by position; unused unless a function
}

func (p *parser) read(id byte, r *Reader) {
	switch id {
	case secType:
		r.vec(func() { p.types = append(p.types, r.signature()) })
	case secImport:
		r.vec(func() { p.readImport(r) })
	case secFunction:
		r.vec(func() { p.funcs = append(p.funcs, r.U32()) })
	case secTable:
		r.vec(func() { p.mod.Tables = append(p.mod.Tables, r.table()) })
	case secMemory:
		r.vec(func() { p.mod.Memories = append(p.mod.Memories, r.limits()) })
	case secExport:
		r.vec(func() {
			p.mod.Exports = append(p.mod.Exports, Export{Name: r.Name(), Kind: Kind(r.Byte())})
			p.exportFns = append(p.exportFns, r.U32())
		})
	case secStart:
		p.mod.Start = true
		r.U32()
	default: // code, data, globals and elements are the engine's to validate
		return
	}
	if r.Len() > 0 {
		r.malformed("bytes left over")
	}
}

func (p *parser) readImport(r *Reader) {
	imp := Import{Module: r.Name(), Name: r.Name(), Kind: Kind(r.Byte())}
	switch imp.Kind {
	case Func:
		p.importFns = append(p.importFns, r.U32())
		p.importIdx = append(p.importIdx, len(p.mod.Imports))
	case Table:
		r.table()
	case Memory:
		r.limits()
	case Global:
		r.Byte()
		r.Byte()
	case Tag:
		r.Byte()
		r.U32()
	default:
		r.malformed("unknown kind of import")
	}
	p.mod.Imports = append(p.mod.Imports, imp)
}

func (p *parser) resolve() error {
	for i, at := range p.importIdx {
		t := p.importFns[i]
		if uint64(t) >= uint64(len(p.types)) {
			return fmt.Errorf("%w: import %d has no type", ErrMalformed, at)
		}
		p.mod.Imports[at].Sig = p.types[t]
	}
	all := append(p.importFns, p.funcs...)
	for i := range p.mod.Exports {
		e := &p.mod.Exports[i]
		if e.Kind != Func {
			continue
		}
		f := p.exportFns[i]
		if uint64(f) >= uint64(len(all)) || uint64(all[f]) >= uint64(len(p.types)) {
			return fmt.Errorf("%w: export %q has no function", ErrMalformed, e.Name)
		}
		e.Sig = p.types[all[f]]
	}
	p.mod.Funcs = len(p.funcs)
	return nil
}

// vec calls item as often as the count says.
func (r *Reader) vec(item func()) {
	n := r.Count()
	if n > maxItems {
		r.malformed(fmt.Sprintf("%d entries, more than %d,", n, maxItems))
	}
	for ; n > 0 && r.err == nil; n-- {
		item()
	}
}

func (r *Reader) signature() Signature {
	if r.Byte() != 0x60 {
		r.malformed("not a function type")
		return Signature{}
	}
	return Signature{Params: r.valTypes(), Results: r.valTypes()}
}

func (r *Reader) valTypes() []ValType {
	var types []ValType
	r.vec(func() { types = append(types, ValType(r.Byte())) })
	return types
}

// limits reads sizes: bit 0 of the flags says that there is a maximum, bit 1
// shared, bit 2 64-bit sizes.
func (r *Reader) limits() Limits {
	flags := r.Byte()
	if flags > 7 {
		r.malformed("unknown limits")
		return Limits{}
	}
	size := func() uint64 { return uint64(r.U32()) }
	if flags&4 != 0 {
		size = r.U64
	}
	l := Limits{HasMax: flags&1 != 0, Shared: flags&2 != 0}
	l.Min = size()
	if l.HasMax {
		l.Max = size()
	}
	return l
}

// The types of elements that a table of a core module has. Other encodings,
// with expressions in them, are not read.
const (
	funcRef   = 0x70
	externRef = 0x6f
)

func (r *Reader) table() Limits {
	if elem := r.Byte(); elem != funcRef && elem != externRef {
		r.malformed("an unknown type of table")
		return Limits{}
	}
	return r.limits()
}
