package wasmgen

// statements writes a few.
func (b *body) statements(depth int) {
	for range b.n(5) {
		b.statement(depth)
	}
}

// statement leaves nothing.
func (b *body) statement(depth int) {
	if depth <= 0 || b.left <= 0 {
		b.op(0x01)
		return
	}
	switch b.n(16) {
	case 0, 1:
		b.value(b.valueType(), depth)
		b.op(0x1a)
	case 2, 3:
		b.assign(depth)
	case 4:
		b.callStatement(depth)
	case 5, 6:
		b.blockStatement(depth - 1)
	case 7, 8:
		b.loop(depth - 1)
	case 9:
		b.branch(depth - 1)
	case 10:
		b.branchTable(depth - 1)
	case 11:
		if len(b.tables) > 0 {
			b.tableStatement(depth - 1)
			return
		}
		b.leave(depth - 1)
	case 12:
		b.leave(depth - 1)
	default:
		b.memoryStatement(depth - 1)
	}
}

func (b *body) memoryStatement(depth int) {
	switch {
	case b.memory.min == 0:
		b.assign(depth)
	case b.one(3):
		b.bulk(depth)
	default:
		b.store(depth)
	}
}

// assign sets a local or a global.
func (b *body) assign(depth int) {
	typ := b.valueType()
	b.value(typ, depth)
	if g, ok := b.globalOf(typ, true); ok && b.one(2) {
		b.op(0x24, g)
		return
	}
	b.pop(typ)
}

// leave returns, or, seldom, traps.
func (b *body) leave(depth int) {
	switch b.n(8) {
	case 0:
		b.op(0x00)
		b.dead()
	case 1:
		b.values(b.labels[0].types, depth)
		b.op(0x0f)
		b.dead()
	default:
		b.value(I32, depth)
		b.begin(0x04, sig{})
		b.values(b.labels[0].types, depth)
		b.op(0x0f)
		b.dead()
		b.end()
	}
}

// dead writes code that is never reached, where operands come from nowhere.
func (b *body) dead() {
	for range b.n(4) {
		typ := numeric[b.n(len(numeric))]
		switch b.n(6) {
		case 0:
			b.op(0x1b) // select of unknown operands
			b.op(0x1a)
		case 1:
			b.op(0x1c, 1, int(typ))
			b.pop(typ)
		case 2:
			b.op(0x1a)
		case 3:
			l := b.n(len(b.labels))
			b.op(0x0d, l)
			b.popAll(b.target(l).types)
		case 4:
			b.begin(0x02, sig{nil, []byte{typ}})
			b.op(0x00)
			b.end()
			b.pop(typ)
		default:
			b.deadOperator(typ)
		}
	}
}

func (b *body) deadOperator(typ byte) {
	o := ops[typ][b.n(len(ops[typ]))]
	b.op(o.code)
	switch {
	case o.code == shuffle:
		b.out = append(b.out, make([]byte, 16)...)
	case o.lanes > 0:
		b.out = append(b.out, byte(o.lanes-1))
	}
	b.pop(typ)
}

// begin opens a block, a loop or an if of a type.
func (b *body) begin(code uint32, s sig) {
	b.op(code)
	b.out = append(b.out, b.blockType(s)...)
	l := label{types: s.results}
	if code == 0x03 {
		l = label{types: s.params, loop: true}
	}
	b.labels = append(b.labels, l)
}

func (b *body) end() {
	b.op(0x0b)
	b.labels = b.labels[:len(b.labels)-1]
}

// blockType encodes s: the short form where there is one.
func (b *body) blockType(s sig) []byte {
	switch {
	case len(s.params) == 0 && len(s.results) == 0:
		return []byte{0x40}
	case len(s.params) == 0 && len(s.results) == 1:
		return []byte{s.results[0]}
	}
	for i, t := range b.types {
		if string(t.params) == string(s.params) && string(t.results) == string(s.results) {
			return appendS64(nil, int64(i))
		}
	}
	b.types = append(b.types, s)
	return appendS64(nil, int64(len(b.types)-1))
}

// target returns the label that l blocks out leads to.
func (b *body) target(l int) label { return b.labels[len(b.labels)-1-l] }

// blockValue leaves a value from a block.
func (b *body) blockValue(typ byte, depth int) {
	b.block(sig{b.params(depth), []byte{typ}}, depth)
}

// params leaves the operands of a block and returns their types.
func (b *body) params(depth int) []byte {
	if !b.one(3) {
		return nil
	}
	types := b.typeList(2)
	b.values(types, depth)
	return types
}

// blockStatement writes a block of any results and drops them.
func (b *body) blockStatement(depth int) {
	s := sig{b.params(depth), b.typeList(2)}
	b.block(s, depth)
	b.popAll(s.results)
}

// block writes a block or an if; its operands are on the stack.
func (b *body) block(s sig, depth int) {
	switch b.n(4) {
	case 0, 1:
		b.begin(0x02, s)
		b.fill(s, depth)
		b.end()
	case 2:
		b.value(I32, depth)
		b.begin(0x04, s)
		b.fill(s, depth)
		b.op(0x05)
		b.fill(s, depth)
		b.end()
	default:
		b.value(I32, depth)
		// Without else, the operands are the results.
		b.begin(0x04, sig{s.params, s.params})
		b.statements(depth)
		b.end()
		b.popAll(s.params)
		b.values(s.results, depth)
	}
}

// fill writes what is in a block of type s.
func (b *body) fill(s sig, depth int) {
	b.popAll(s.params)
	b.statements(depth)
	b.values(s.results, depth)
}

// loop writes a loop that goes round while there is budget.
func (b *body) loop(depth int) {
	s := sig{b.params(depth), b.typeList(2)}
	b.begin(0x03, s)
	b.popAll(s.params)
	b.statements(depth)
	b.values(s.params, depth)
	b.value(I32, depth)
	b.steps(0)
	b.op(0x0d, 0)
	b.popAll(s.params)
	b.values(s.results, depth)
	b.end()
	b.popAll(s.results)
}

// steps makes the condition on the stack hold only while there is budget, if
// the label leads back.
func (b *body) steps(l int) {
	if !b.target(l).loop || b.wild && b.one(4) {
		return
	}
	b.i32(0)
	b.op(0x47) // i32.ne: 0 or 1
	b.budget()
	b.op(0x71)
}

// branchWith leaves a value that a conditional branch would take along.
func (b *body) branchWith(typ byte, depth int) {
	for l := range b.labels {
		if t := b.target(l).types; len(t) == 1 && t[0] == typ {
			b.value(typ, depth)
			b.value(I32, depth)
			b.steps(l)
			b.op(0x0d, l)
			return
		}
	}
	b.value(typ, depth)
}

// branch writes a branch, mostly with a condition.
func (b *body) branch(depth int) {
	l := b.n(len(b.labels))
	t := b.target(l)
	b.values(t.types, depth)
	if !t.loop && b.one(4) {
		b.op(0x0c, l)
		b.dead()
		return
	}
	b.value(I32, depth)
	b.steps(l)
	b.op(0x0d, l)
	b.popAll(t.types)
}

// branchTable branches by an index to labels that take the same values, in a
// block of its own so that what follows is reached.
func (b *body) branchTable(depth int) {
	own := sig{results: b.typeList(1)}
	if !b.one(3) {
		own.results = b.target(b.n(len(b.labels))).types
	}
	b.begin(0x02, own)
	var to []int
	for l := range b.labels {
		if t := b.target(l); string(t.types) == string(own.results) && (!t.loop || b.wild) {
			to = append(to, l)
		}
	}
	b.values(own.results, depth)
	b.value(I32, depth)
	count := b.n(6)
	b.op(0x0e, count)
	for range count + 1 {
		b.out = appendU32(b.out, to[b.n(len(to))])
	}
	b.dead()
	b.end()
	b.popAll(own.results)
}
