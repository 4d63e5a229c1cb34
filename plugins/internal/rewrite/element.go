package rewrite

import (
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// The bits of an element segment's kind.
const (
	elemNotActive = 1 // passive, or declared with elemTable
	elemTable     = 2 // an active one names its table
	elemExprs     = 4 // expressions, not function indexes
)

func (m *module) readElements(r *wasmbin.Reader) error {
	n, err := m.count(r, secElement, "element segments", maxElems)
	if err != nil {
		return err
	}
	out := m.raw[secElement]
	items := uint64(0)
	for ; n > 0; n-- {
		if out, err = m.readElement(r, out, &items); err != nil {
			return err
		}
	}
	m.raw[secElement] = out
	return nil
}

// readElement validates a segment and appends it in the same encoding.
func (m *module) readElement(r *wasmbin.Reader, out []byte, items *uint64) ([]byte, error) {
	at := r.Offset()
	kind := r.U32()
	if r.Err() == nil && kind > 7 {
		return nil, fmt.Errorf("%w: malformed element segment kind %d at byte %d", ErrMalformed, kind, at)
	}
	out = u32(out, kind)
	var err error
	table, active := uint32(0), kind&elemNotActive == 0
	if active {
		if kind&elemTable != 0 {
			table = r.U32()
			out = u32(out, table)
		}
		if out, err = m.constExpr(r, out, i32); err != nil {
			return nil, err
		}
	}
	typ := funcref
	if kind&(elemNotActive|elemTable) != 0 {
		if typ, out, err = elemType(r, out, kind&elemExprs != 0); err != nil {
			return nil, err
		}
	}
	if active {
		if err := m.checkElemTable(table, typ, at); err != nil {
			return nil, err
		}
	}
	m.elems = append(m.elems, typ)
	countAt := r.Offset()
	n := r.U32()
	*items += uint64(n)
	if err := atMost("elements", *items, maxElemItems, countAt); err != nil {
		return nil, err
	}
	out = u32(out, n)
	for ; n > 0; n-- {
		if kind&elemExprs != 0 {
			out, err = m.constExpr(r, out, typ)
		} else {
			var f uint32
			f, err = m.declare(r)
			out = u32(out, m.newFunc(f))
		}
		if err != nil {
			return nil, err
		}
	}
	return out, r.Err()
}

// elemType reads the type of a segment's elements: a reference type before
// expressions, else a zero for functions.
func elemType(r *wasmbin.Reader, out []byte, exprs bool) (byte, []byte, error) {
	at := r.Offset()
	if exprs {
		t := refType(r)
		return t, append(out, t), r.Err()
	}
	if k := r.Byte(); k != 0 {
		return 0, nil, fmt.Errorf("%w: malformed element kind 0x%02x at byte %d", ErrMalformed, k, at)
	}
	return funcref, append(out, 0), r.Err()
}

func (m *module) checkElemTable(table uint32, typ byte, at int) error {
	if int64(table) >= int64(len(m.tables)) {
		return fmt.Errorf("%w: unknown table %d at byte %d", ErrInvalid, table, at)
	}
	if have := m.tables[table].elem; have != typ {
		return fmt.Errorf("%w: type mismatch: elements of type %s for a table of %s at byte %d", ErrInvalid, typeName(typ), typeName(have), at)
	}
	return nil
}
