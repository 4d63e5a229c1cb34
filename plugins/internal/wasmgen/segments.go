package wasmgen

// place is where an active element segment puts a function.
type place struct{ table, index int }

// makeElems writes element segments in every form of the format.
func (m *module) makeElems() {
	m.placed = map[int]place{}
	for range m.n(4) {
		m.makeElem()
	}
	// Every function that code may refer to is declared.
	m.elem = appendU32(append(m.elem, 3, 0), m.functions())
	for f := range m.functions() {
		m.elem = appendU32(m.elem, f)
	}
	m.elems = append(m.elems, segment{typ: FuncRef})
}

func (m *module) makeElem() {
	form := m.n(8)
	active, expressions := form&1 == 0, form&4 != 0
	t := 0
	typ := byte(FuncRef)
	if active {
		if len(m.tables) == 0 {
			return
		}
		if form&2 != 0 {
			t = m.n(len(m.tables))
		}
		typ = m.tables[t].elem
	} else if expressions && m.one(4) {
		typ = ExternRef
	}
	if typ == ExternRef && (!expressions || form&3 == 0) {
		return // the form has no place for the type
	}
	count := m.n(6)
	offset := m.offset(active, t, count)
	m.elem = appendU32(m.elem, form)
	if active && form&2 != 0 {
		m.elem = appendU32(m.elem, t)
	}
	if active {
		m.elem = append(appendConst(m.elem, I32, uint64(offset)), 0x0b)
	}
	switch {
	case form&3 == 0:
	case expressions:
		m.elem = append(m.elem, typ)
	default:
		m.elem = append(m.elem, 0)
	}
	m.elem = appendU32(m.elem, count)
	for i := range count {
		m.makeElement(typ, expressions, active, place{t, offset + i})
	}
	m.elems = append(m.elems, segment{typ: typ, passive: form&3 == 1, count: count})
}

// offset returns where in table t a segment goes: mostly inside.
func (m *module) offset(active bool, t, count int) int {
	if !active {
		return 0
	}
	if room := int(m.tables[t].min) - count; room >= 0 && !m.one(16) {
		return m.n(room + 1)
	}
	return m.n(20)
}

func (m *module) makeElement(typ byte, expression, active bool, at place) {
	f := m.n(m.functions())
	switch {
	case !expression:
		m.elem = appendU32(m.elem, f)
	case typ == ExternRef || m.one(4):
		m.elem = append(m.elem, 0xd0, typ, 0x0b)
		return
	default:
		m.elem = append(appendU32(append(m.elem, 0xd2), f), 0x0b)
	}
	if active {
		m.placed[f] = at
	}
}

// makeDatas writes data segments in every form of the format.
func (m *module) makeDatas() {
	for range m.n(4) {
		form := m.n(3)
		if m.memory.min == 0 {
			form = 1
		}
		b := make([]byte, m.n(40))
		for i := range b {
			b[i] = m.byte()
		}
		m.data = appendU32(m.data, form)
		if form == 2 {
			m.data = append(m.data, 0)
		}
		if form != 1 {
			offset := m.n(4096)
			if m.one(24) {
				offset = int(m.memory.min)<<16 - m.n(64)
			}
			m.data = append(appendConst(m.data, I32, uint64(offset)), 0x0b)
		}
		m.data = appendBytes(m.data, b)
		m.datas = append(m.datas, segment{passive: form == 1, count: len(b)})
	}
}
