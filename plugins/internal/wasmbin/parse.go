package wasmbin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
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
	if err := header(wasm); err != nil {
		return nil, err
	}
	p := parser{mod: &Module{}}
	var seen [secLast + 1]bool
	for rest := wasm[headerLen:]; len(rest) > 0; {
		id, body, next, err := section(rest)
		if err != nil {
			return nil, err
		}
		rest = next
		if id == 0 {
			continue
		}
		if id > secLast || seen[id] {
			return nil, fmt.Errorf("%w: section %d is unknown or there twice", ErrMalformed, id)
		}
		seen[id] = true
		r := reader{b: body}
		p.read(id, &r)
		if r.bad {
			return nil, fmt.Errorf("%w: section %d is broken or has more than %d entries", ErrMalformed, id, maxItems)
		}
	}
	if err := p.resolve(); err != nil {
		return nil, err
	}
	return p.mod, nil
}

func header(wasm []byte) error {
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

// section splits the first section off b.
func section(b []byte) (id byte, body, rest []byte, err error) {
	r := reader{b: b[1:]}
	size := r.u32()
	if r.bad || uint64(size) > uint64(len(r.b)) {
		return 0, nil, nil, fmt.Errorf("%w: section %d is cut off", ErrMalformed, b[0])
	}
	return b[0], r.b[:size], r.b[size:], nil
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

func (p *parser) read(id byte, r *reader) {
	switch id {
	case secType:
		r.vec(func() { p.types = append(p.types, r.signature()) })
	case secImport:
		r.vec(func() { p.readImport(r) })
	case secFunction:
		r.vec(func() { p.funcs = append(p.funcs, r.u32()) })
	case secTable:
		r.vec(func() { p.mod.Tables = append(p.mod.Tables, r.table().limits) })
	case secMemory:
		r.vec(func() { p.mod.Memories = append(p.mod.Memories, r.limits()) })
	case secExport:
		r.vec(func() {
			p.mod.Exports = append(p.mod.Exports, Export{Name: r.name(), Kind: Kind(r.byte())})
			p.exportFns = append(p.exportFns, r.u32())
		})
	case secStart:
		p.mod.Start = true
		r.u32()
	default: // code, data, globals and elements are the engine's to validate
		r.b = nil
	}
	if len(r.b) > 0 {
		r.bad = true
	}
}

func (p *parser) readImport(r *reader) {
	imp := Import{Module: r.name(), Name: r.name(), Kind: Kind(r.byte())}
	switch imp.Kind {
	case Func:
		p.importFns = append(p.importFns, r.u32())
		p.importIdx = append(p.importIdx, len(p.mod.Imports))
	case Table:
		r.table()
	case Memory:
		r.limits()
	case Global:
		r.byte()
		r.byte()
	case Tag:
		r.byte()
		r.u32()
	default:
		r.bad = true
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

// reader decodes the body of one section. After the first mistake it is bad
// and answers zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint(limit uint64) uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.b) // LEB128
	if n <= 0 || v > limit {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) u32() uint32 { return uint32(r.uvarint(math.MaxUint32)) }

func (r *reader) name() string {
	n := r.u32()
	if r.bad || uint64(n) > uint64(len(r.b)) || !utf8.Valid(r.b[:n]) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// vec calls item as often as the count says.
func (r *reader) vec(item func()) {
	n := r.u32()
	if n > maxItems {
		r.bad = true
	}
	for ; n > 0 && !r.bad; n-- {
		item()
	}
}

func (r *reader) signature() Signature {
	if r.byte() != 0x60 {
		r.bad = true
		return Signature{}
	}
	return Signature{Params: r.valTypes(), Results: r.valTypes()}
}

func (r *reader) valTypes() []ValType {
	var types []ValType
	r.vec(func() { types = append(types, ValType(r.byte())) })
	return types
}

// hasMax is the bit of a limit's flags that says that there is a maximum.
const hasMax = 1

// limits reads sizes: bit 0 of the flags says that there is a maximum, bit 1
// shared, bit 2 64-bit sizes.
func (r *reader) limits() Limits {
	flags := r.byte()
	if flags > 7 {
		r.bad = true
		return Limits{}
	}
	most := uint64(math.MaxUint32)
	if flags&4 != 0 {
		most = math.MaxUint64
	}
	l := Limits{HasMax: flags&hasMax != 0, Shared: flags&2 != 0}
	l.Min = r.uvarint(most)
	if l.HasMax {
		l.Max = r.uvarint(most)
	}
	return l
}
