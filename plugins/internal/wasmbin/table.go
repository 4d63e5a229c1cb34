package wasmbin

import (
	"encoding/binary"
	"fmt"
)

// The types of elements that a table of a core module has. Other encodings,
// with expressions in them, are not read, so that no engine sees other sizes
// than Parse does.
const (
	funcRef   = 0x70
	externRef = 0x6f
)

// table is one entry of the table section.
type table struct {
	elem   byte
	limits Limits
	flags  byte
}

func (r *reader) table() table {
	t := table{elem: r.byte()}
	if t.elem != funcRef && t.elem != externRef {
		r.bad = true
		return table{}
	}
	if len(r.b) > 0 {
		t.flags = r.b[0]
	}
	t.limits = r.limits()
	return t
}

// LimitTables returns wasm with a maximum for every table that it declares:
// its own, its initial size or most elements, of the last two the larger and
// of that and the first the smaller. A binary without tables is returned as it
// is, any other as a copy. Errors wrap those of Parse.
func LimitTables(wasm []byte, most uint64) ([]byte, error) {
	if err := header(wasm); err != nil {
		return nil, err
	}
	for rest := wasm[headerLen:]; len(rest) > 0; {
		id, body, next, err := section(rest)
		if err != nil {
			return nil, err
		}
		if id != secTable {
			rest = next
			continue
		}
		limited, err := limitTables(body, most)
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, len(wasm)+len(limited)-len(body)+binary.MaxVarintLen32)
		out = append(out, wasm[:len(wasm)-len(rest)]...)
		out = append(out, secTable)
		out = binary.AppendUvarint(out, uint64(len(limited)))
		out = append(out, limited...)
		return append(out, next...), nil
	}
	return wasm, nil
}

// limitTables does the work of LimitTables on the body of the section.
func limitTables(body []byte, most uint64) ([]byte, error) {
	r := reader{b: body}
	var tables []table
	r.vec(func() { tables = append(tables, r.table()) })
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: section %d is broken", ErrMalformed, secTable)
	}
	out := binary.AppendUvarint(nil, uint64(len(tables)))
	for _, t := range tables {
		end := max(t.limits.Min, most)
		if t.limits.HasMax {
			end = min(end, t.limits.Max)
		}
		out = append(out, t.elem, t.flags|hasMax)
		out = binary.AppendUvarint(out, t.limits.Min)
		out = binary.AppendUvarint(out, end)
	}
	return out, nil
}
