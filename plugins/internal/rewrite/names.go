package rewrite

import (
	"fmt"
	"strconv"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

type funcName struct {
	index uint32
	name  string
}

// readNames reads the names of the module and of its functions. The
// specification lets a broken section pass, engines do not.
func (m *module) readNames(r *wasmbin.Reader) error {
	for r.Len() > 0 {
		id, size := r.Byte(), r.U32()
		at := r.Offset()
		content := r.Bytes(size)
		s := wasmbin.NewReader(content, at)
		switch id {
		case 0:
			s.Name()
			m.modName = content
		case 1:
			m.funcNames = readFuncNames(s)
		case 2:
			skipLocalNames(s)
		default:
			continue
		}
		if err := s.Err(); err != nil {
			return fmt.Errorf("name section: %w", err)
		}
		if s.Len() > 0 {
			return fmt.Errorf("%w: bytes left over in the name section at byte %d", ErrMalformed, s.Offset())
		}
	}
	return r.Err()
}

// readFuncNames reads names in the order of their functions; out of order they
// are none.
func readFuncNames(r *wasmbin.Reader) []funcName {
	at := r.Offset()
	n := r.Count()
	if err := atMost("names of functions", uint64(n), maxFunctions+maxImports, at); err != nil {
		r.Fail(err)
		return nil
	}
	names := make([]funcName, 0, n)
	ordered := true
	for ; n > 0 && r.Err() == nil; n-- {
		f := funcName{r.U32(), r.Name()}
		if k := len(names); k > 0 && names[k-1].index >= f.index {
			ordered = false
		}
		names = append(names, f)
	}
	if !ordered {
		return nil
	}
	return names
}

func skipLocalNames(r *wasmbin.Reader) {
	for n := r.Count(); n > 0 && r.Err() == nil; n-- {
		r.U32()
		for k := r.Count(); k > 0 && r.Err() == nil; k-- {
			r.U32()
			r.Name()
		}
	}
}

// appendNames appends the name section. A function without a name gets the
// number that it has in the original, since its own is another one now.
func (m *module) appendNames(w []byte) []byte {
	var list []byte
	n := uint32(0)
	add := func(index uint32, name string) {
		list = str(u32(list, index), name)
		n++
	}
	given := m.funcNames
	for i := range uint32(len(m.funcs)) {
		if i == m.yieldFunc() {
			add(i, Prefix+HostYield)
		}
		switch {
		case len(given) > 0 && given[0].index == i:
			add(m.newFunc(i), given[0].name)
			given = given[1:]
		case int(i) >= m.importedFuncs:
			add(m.newFunc(i), "$"+strconv.Itoa(int(i)))
		}
	}
	if len(m.funcs) == m.importedFuncs {
		add(m.yieldFunc(), Prefix+HostYield)
	}
	if m.usesBulk {
		helper := uint32(len(m.funcs)) + 1
		add(helper, Prefix+"memory.copy")
		add(helper+1, Prefix+"memory.fill")
	}
	body := str(nil, "name")
	if m.modName != nil {
		body = append(u32(append(body, 0), uint32(len(m.modName))), m.modName...)
	}
	count := u32(nil, n)
	body = append(u32(append(body, 1), uint32(len(count)+len(list))), count...)
	body = append(body, list...)
	return append(u32(append(w, secCustom), uint32(len(body))), body...)
}
