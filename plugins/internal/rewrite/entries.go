package rewrite

import (
	"fmt"
	"strconv"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

func (m *module) readGlobals(r *wasmbin.Reader) error {
	n, err := m.count(r, secGlobal, "globals", maxGlobals)
	if err != nil {
		return err
	}
	out := m.raw[secGlobal]
	for ; n > 0; n-- {
		g := readGlobalType(r)
		out = append(out, g.typ, 0)
		if g.mutable {
			out[len(out)-1] = 1
		}
		if out, err = m.constExpr(r, out, g.typ); err != nil {
			return err
		}
		index := len(m.globals)
		m.globals = append(m.globals, g)
		if g.mutable && (g.typ == v128 || isRef(g.typ)) {
			m.unrestore.add("mutable global " + strconv.Itoa(index) + " of type " + typeName(g.typ))
		}
	}
	m.raw[secGlobal] = out
	return nil
}

func typeName(t byte) string {
	if t == unknown {
		return "any"
	}
	return wasmbin.ValType(t).String()
}

// constExpr validates a constant expression and appends it with the function
// indexes of the rewritten module.
func (m *module) constExpr(r *wasmbin.Reader, out []byte, want byte) ([]byte, error) {
	at := r.Offset()
	got, values := byte(unknown), 0
	for {
		opAt := r.Offset()
		from := *r
		op := r.Byte()
		var err error
		switch op {
		case 0x0b:
			if err := r.Err(); err != nil {
				return nil, err
			}
			if values != 1 || got != want {
				return nil, fmt.Errorf("%w: type mismatch: the constant expression at byte %d is not one %s", ErrInvalid, at, typeName(want))
			}
			return append(out, op), nil
		case 0x41:
			got = i32
			r.S32()
		case 0x42:
			got = i64
			r.S64()
		case 0x43:
			got = f32
			r.Bytes(4)
		case 0x44:
			got = f64
			r.Bytes(8)
		case 0x23:
			got, err = m.constGlobal(r)
		case 0xd0:
			got = refType(r)
		case 0xd2:
			got = funcref
			var f uint32
			if f, err = m.declare(r); err == nil {
				out = u32(append(out, op), m.newFunc(f))
			}
		default:
			got, err = constOther(r, op, opAt)
		}
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return nil, err
		}
		values++
		if op != 0xd2 {
			out = append(out, from.Bytes(uint32(from.Len()-r.Len()))...)
		}
	}
}

// constOther reads v128.const and names what is refused.
func constOther(r *wasmbin.Reader, op byte, at int) (byte, error) {
	switch op {
	case 0xfd:
		if r.Byte() == 12 { // in one byte, as engines read it
			r.Bytes(16)
			return v128, nil
		}
	case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
		return 0, fmt.Errorf("%w: extended constant expressions (opcode 0x%02x) at byte %d", ErrUnsupported, op, at)
	}
	if r.Err() != nil {
		return 0, r.Err()
	}
	return 0, fmt.Errorf("%w: constant expression required: opcode 0x%02x at byte %d", ErrInvalid, op, at)
}

// constGlobal reads the index of an imported immutable global.
func (m *module) constGlobal(r *wasmbin.Reader) (byte, error) {
	at := r.Offset()
	g := r.U32()
	if r.Err() != nil {
		return 0, r.Err()
	}
	if int64(g) >= int64(m.importedGlobals) {
		return 0, fmt.Errorf("%w: unknown global %d at byte %d: a constant expression may use imported ones", ErrInvalid, g, at)
	}
	if m.globals[g].mutable {
		return 0, fmt.Errorf("%w: constant expression required: global %d at byte %d is mutable", ErrInvalid, g, at)
	}
	return m.globals[g].typ, nil
}

// declare reads a function index that ref.func may then use.
func (m *module) declare(r *wasmbin.Reader) (uint32, error) {
	at := r.Offset()
	f := r.U32()
	if r.Err() != nil {
		return 0, r.Err()
	}
	if int64(f) >= int64(len(m.funcs)) {
		return 0, fmt.Errorf("%w: unknown function %d at byte %d", ErrInvalid, f, at)
	}
	if m.declared == nil {
		m.declared = make([]bool, len(m.funcs))
	}
	m.declared[f] = true
	return f, nil
}

func (m *module) readExports(r *wasmbin.Reader) error {
	n, err := m.count(r, secExport, "exports", maxExports)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for ; n > 0; n-- {
		at := r.Offset()
		e := export{name: r.Name(), kind: r.Byte()}
		if err := ownName("export", e.name, at); err != nil {
			return err
		}
		if seen[e.name] {
			return fmt.Errorf("%w: duplicate export name at byte %d", ErrInvalid, at)
		}
		seen[e.name] = true
		if e.index, err = m.exported(r, e.kind); err != nil {
			return err
		}
		m.exports = append(m.exports, e)
	}
	return nil
}

func (m *module) exported(r *wasmbin.Reader, kind byte) (uint32, error) {
	at := r.Offset()
	have := 0
	switch kind {
	case kindFunc:
		return m.declare(r)
	case kindTable:
		have = len(m.tables)
	case kindMemory:
		have = len(m.mems)
	case kindGlobal:
		have = len(m.globals)
	case kindTag:
		return 0, fmt.Errorf("%w: exceptions (an exported tag) at byte %d", ErrUnsupported, at)
	default:
		return 0, fmt.Errorf("%w: malformed export kind 0x%02x at byte %d", ErrMalformed, kind, at)
	}
	i := r.U32()
	if r.Err() == nil && int64(i) >= int64(have) {
		return 0, fmt.Errorf("%w: unknown %s %d at byte %d", ErrInvalid, wasmbin.Kind(kind), i, at)
	}
	return i, r.Err()
}

func (m *module) readStart(r *wasmbin.Reader) error {
	at := r.Offset()
	f := r.U32()
	if r.Err() != nil {
		return r.Err()
	}
	if int64(f) >= int64(len(m.funcs)) {
		return fmt.Errorf("%w: unknown function %d at byte %d", ErrInvalid, f, at)
	}
	if t := m.types[m.funcs[f]]; len(t.params)+len(t.results) > 0 {
		return fmt.Errorf("%w: start function at byte %d has parameters or results", ErrInvalid, at)
	}
	m.start = int64(f)
	return nil
}

func (m *module) readDataCount(r *wasmbin.Reader) error {
	n, err := m.count(r, secDataCount, "data segments", maxData)
	m.dataCount = int64(n)
	return err
}

func (m *module) readData(r *wasmbin.Reader) error {
	n, err := m.count(r, secData, "data segments", maxData)
	if err != nil {
		return err
	}
	m.data = make([]segment, 0, min(int(n), r.Len()))
	for ; n > 0; n-- {
		whole := *r
		s, err := m.readSegment(r)
		if err != nil {
			return err
		}
		s.raw = whole.Bytes(uint32(whole.Len() - r.Len()))
		m.data = append(m.data, s)
	}
	return nil
}

func (m *module) readSegment(r *wasmbin.Reader) (segment, error) {
	s := segment{mode: dataPassive}
	at := r.Offset()
	flag := r.U32()
	switch {
	case r.Err() != nil:
	case flag > 2:
		return s, fmt.Errorf("%w: malformed data segment kind %d at byte %d", ErrMalformed, flag, at)
	case flag != 1:
		mem := uint32(0)
		if flag == 2 {
			mem = r.U32()
		}
		if r.Err() == nil && int64(mem) >= int64(len(m.mems)) {
			return s, fmt.Errorf("%w: unknown memory %d at byte %d", ErrInvalid, mem, at)
		}
		offset := *r
		s.mode = dataActive
		if _, err := m.constExpr(r, nil, i32); err != nil {
			return s, err
		}
		if offset.Byte() == 0x41 {
			s.mode, s.offset = dataConst, uint32(offset.S32())
		}
	}
	s.bytes = r.Bytes(r.U32())
	return s, r.Err()
}
