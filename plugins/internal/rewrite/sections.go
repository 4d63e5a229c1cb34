package rewrite

import (
	"fmt"
	"strings"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// Value types by number. unknown stands for any type in unreachable code.
const (
	unknown   byte = 0
	i32       byte = 0x7f
	i64       byte = 0x7e
	f32       byte = 0x7d
	f64       byte = 0x7c
	v128      byte = 0x7b
	funcref   byte = 0x70
	externref byte = 0x6f
)

func isRef(t byte) bool { return t == funcref || t == externref }

// Kinds of imports and exports.
const (
	kindFunc byte = iota
	kindTable
	kindMemory
	kindGlobal
	kindTag
)

// valType reads a value type.
func valType(r *wasmbin.Reader) byte {
	at := r.Offset()
	t := r.Byte()
	switch t {
	case i32, i64, f32, f64, v128, funcref, externref:
		return t
	case 0x63, 0x64, 0x6e, 0x6d, 0x6c, 0x6b, 0x6a, 0x71, 0x72, 0x73:
		r.Fail(fmt.Errorf("%w: typed references or garbage collection (type 0x%02x) at byte %d", ErrUnsupported, t, at))
	case 0x69, 0x74:
		r.Fail(fmt.Errorf("%w: exceptions (type 0x%02x) at byte %d", ErrUnsupported, t, at))
	default:
		r.Fail(fmt.Errorf("%w: malformed value type 0x%02x at byte %d", ErrMalformed, t, at))
	}
	return 0
}

func refType(r *wasmbin.Reader) byte {
	at := r.Offset()
	t := valType(r)
	if r.Err() == nil && !isRef(t) {
		r.Fail(fmt.Errorf("%w: malformed reference type 0x%02x at byte %d", ErrMalformed, t, at))
	}
	return t
}

// count reads how many entries a section has.
func (m *module) count(r *wasmbin.Reader, id int, what string, most uint64) (uint32, error) {
	at := r.Offset()
	n := r.U32()
	if err := atMost(what, uint64(n), most, at); err != nil {
		return 0, err
	}
	m.counts[id] = n
	return n, r.Err()
}

func (m *module) readTypes(r *wasmbin.Reader) error {
	n, err := m.count(r, secType, "types", maxTypes)
	if err != nil {
		return err
	}
	m.types = make([]funcType, 0, min(int(n), r.Len()))
	rest := *r
	for ; n > 0; n-- {
		at := r.Offset()
		switch form := r.Byte(); form {
		case 0x60:
		case 0x50, 0x4f, 0x4e, 0x5f, 0x5e:
			return fmt.Errorf("%w: garbage collection (type form 0x%02x) at byte %d", ErrUnsupported, form, at)
		default:
			if err := r.Err(); err != nil {
				return err
			}
			return fmt.Errorf("%w: malformed type form 0x%02x at byte %d", ErrMalformed, form, at)
		}
		t := funcType{params: valTypes(r), results: valTypes(r)}
		if r.Err() != nil {
			return r.Err()
		}
		m.types = append(m.types, t)
	}
	m.raw[secType] = rest.Bytes(uint32(rest.Len() - r.Len()))
	return nil
}

func valTypes(r *wasmbin.Reader) []byte {
	at := r.Offset()
	n := r.U32()
	if err := atMost("parameters or results", uint64(n), maxParams, at); err != nil {
		r.Fail(err)
		return nil
	}
	list := *r
	for i := uint32(0); i < n && r.Err() == nil; i++ {
		valType(r)
	}
	if r.Err() != nil {
		return nil
	}
	return list.Bytes(n)
}

func (m *module) readImports(r *wasmbin.Reader) error {
	n, err := m.count(r, secImport, "imports", maxImports)
	if err != nil {
		return err
	}
	rest := *r
	for ; n > 0; n-- {
		at := r.Offset()
		mod, name := r.Name(), r.Name()
		if mod == "" && r.Err() == nil {
			return fmt.Errorf("%w: an import without a module name at byte %d", ErrUnsupported, at)
		}
		for _, s := range []string{mod, name} {
			if err := ownName("import", s, at); err != nil {
				return err
			}
		}
		if err := m.readImport(r); err != nil {
			return err
		}
		if r.Err() != nil {
			return r.Err()
		}
	}
	m.importedFuncs, m.importedTables = len(m.funcs), len(m.tables)
	m.importedMems, m.importedGlobals = len(m.mems), len(m.globals)
	m.raw[secImport] = rest.Bytes(uint32(rest.Len() - r.Len()))
	return m.checkSizes(r.Offset())
}

func (m *module) readImport(r *wasmbin.Reader) error {
	at := r.Offset()
	switch kind := r.Byte(); kind {
	case kindFunc:
		return m.addFunc(r)
	case kindTable:
		m.tables = append(m.tables, readTable(r))
		m.unrestore.add("imported table")
	case kindMemory:
		m.mems = append(m.mems, memoryLimits(r))
		m.unrestore.add("imported memory")
	case kindGlobal:
		g := readGlobalType(r)
		m.globals = append(m.globals, g)
		if g.mutable {
			m.unrestore.add(fmt.Sprintf("imported mutable global %d", len(m.globals)-1))
		}
	case kindTag:
		return fmt.Errorf("%w: exceptions (an imported tag) at byte %d", ErrUnsupported, at)
	default:
		r.Fail(fmt.Errorf("%w: malformed import kind 0x%02x at byte %d", ErrMalformed, kind, at))
	}
	return nil
}

// ownName refuses names that only a rewritten module may have.
func ownName(what, name string, at int) error {
	if strings.HasPrefix(name, Prefix) {
		return fmt.Errorf("%w: the name of an %s at byte %d begins with %q, which is reserved for the host", ErrInvalid, what, at, Prefix)
	}
	return nil
}

func (m *module) addFunc(r *wasmbin.Reader) error {
	at := r.Offset()
	t := r.U32()
	if r.Err() == nil && int64(t) >= int64(len(m.types)) {
		return fmt.Errorf("%w: unknown type %d at byte %d", ErrInvalid, t, at)
	}
	m.funcs = append(m.funcs, t)
	return nil
}

func (m *module) readFunctions(r *wasmbin.Reader) error {
	n, err := m.count(r, secFunction, "functions", maxFunctions)
	if err != nil {
		return err
	}
	rest := *r
	for ; n > 0; n-- {
		if err := m.addFunc(r); err != nil {
			return err
		}
		if r.Err() != nil {
			return r.Err()
		}
	}
	m.raw[secFunction] = rest.Bytes(uint32(rest.Len() - r.Len()))
	return nil
}

// readLimits reads sizes of at most 32 bits.
func readLimits(r *wasmbin.Reader) limits {
	at := r.Offset()
	flags := r.Byte()
	switch {
	case flags > 7:
		r.Fail(fmt.Errorf("%w: malformed limits flags 0x%02x at byte %d", ErrMalformed, flags, at))
	case flags&4 != 0:
		r.Fail(fmt.Errorf("%w: memory64 at byte %d", ErrUnsupported, at))
	case flags&2 != 0:
		r.Fail(fmt.Errorf("%w: threads (shared limits) at byte %d", ErrUnsupported, at))
	}
	l := limits{hasMax: flags&1 != 0}
	l.min = r.U32()
	if l.hasMax {
		l.max = r.U32()
	}
	if r.Err() == nil && l.hasMax && l.max < l.min {
		r.Fail(fmt.Errorf("%w: size minimum must not be greater than maximum at byte %d", ErrInvalid, at))
	}
	return l
}

func readTable(r *wasmbin.Reader) tableType {
	if at := r.Offset(); r.Peek() == 0x40 {
		r.Fail(fmt.Errorf("%w: typed references (a table with an initialiser) at byte %d", ErrUnsupported, at))
	}
	return tableType{refType(r), readLimits(r)}
}

func memoryLimits(r *wasmbin.Reader) limits {
	at := r.Offset()
	l := readLimits(r)
	if l.min > maxPages || l.hasMax && l.max > maxPages {
		r.Fail(fmt.Errorf("%w: memory size must be at most %d pages at byte %d", ErrInvalid, maxPages, at))
	}
	return l
}

func (m *module) readTables(r *wasmbin.Reader) error {
	n, err := m.count(r, secTable, "tables", maxTables)
	if err != nil {
		return err
	}
	for ; n > 0 && r.Err() == nil; n-- {
		t := readTable(r)
		m.tables = append(m.tables, t)
		// Growth is bounded by the declaration, because engines ask nobody.
		out := append(m.raw[secTable], t.elem, 1)
		most := max(t.limits.min, maxGrown)
		if t.limits.hasMax {
			most = min(most, t.limits.max)
		}
		m.raw[secTable] = u32(u32(out, t.limits.min), most)
	}
	if r.Err() != nil {
		return r.Err()
	}
	return m.checkSizes(r.Offset())
}

// checkSizes bounds what tables hold at the start.
func (m *module) checkSizes(at int) error {
	total := uint64(0)
	for _, t := range m.tables {
		total += uint64(t.limits.min)
	}
	if err := atMost("tables", uint64(len(m.tables)), maxTables, at); err != nil {
		return err
	}
	if err := atMost("table elements", total, maxTable, at); err != nil {
		return err
	}
	if len(m.mems) > 1 {
		return fmt.Errorf("%w: multiple memories at byte %d", ErrUnsupported, at)
	}
	return nil
}

func (m *module) readMemories(r *wasmbin.Reader) error {
	n, err := m.count(r, secMemory, "memories", maxPages)
	if err != nil {
		return err
	}
	for ; n > 0 && r.Err() == nil; n-- {
		l := memoryLimits(r)
		m.mems = append(m.mems, l)
		if !l.hasMax {
			m.raw[secMemory] = u32([]byte{0}, l.min)
			continue
		}
		// Instances are shrunk by growing; that takes a page of headroom.
		m.raw[secMemory] = u32(u32([]byte{1}, l.min), min(l.max+1, maxPages))
	}
	if r.Err() != nil {
		return r.Err()
	}
	return m.checkSizes(r.Offset())
}

func readGlobalType(r *wasmbin.Reader) globalType {
	g := globalType{typ: valType(r)}
	at := r.Offset()
	switch mut := r.Byte(); mut {
	case 0, 1:
		g.mutable = mut == 1
	case 2, 3:
		r.Fail(fmt.Errorf("%w: threads (a shared global) at byte %d", ErrUnsupported, at))
	default:
		r.Fail(fmt.Errorf("%w: malformed mutability 0x%02x at byte %d", ErrMalformed, mut, at))
	}
	return g
}
