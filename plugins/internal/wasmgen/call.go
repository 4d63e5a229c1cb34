package wasmgen

import "slices"

// callStatement calls a function and drops its results.
func (b *body) callStatement(depth int) {
	b.popAll(b.call(b.n(b.functions()), depth).results)
}

// callValue leaves a result of a function that has one of the type.
func (b *body) callValue(typ byte, depth int) {
	first := b.n(b.functions())
	for i := range b.functions() {
		f := (first + i) % b.functions()
		results := b.signature(f).results
		at := slices.Index(results, typ)
		if at < 0 {
			continue
		}
		b.call(f, depth)
		b.keep(results, at)
		return
	}
	b.compute(typ, depth)
}

// keep leaves only one of the results on the stack: by way of a spare local if
// others are below it.
func (b *body) keep(results []byte, at int) {
	b.popAll(results[at+1:])
	if at == 0 {
		return
	}
	if results[at] == FuncRef || results[at] == ExternRef {
		b.popAll(results[:at+1])
		b.constant(results[at], 0)
		return
	}
	b.op(0x21, b.spareOf(results[at]))
	b.popAll(results[:at])
	b.op(0x20, b.spareOf(results[at]))
}

// call leaves all results of function f, called by its index or, where tables
// hold functions, by an element that may be another one.
func (b *body) call(f, depth int) sig {
	s := b.signature(f)
	b.values(s.params, depth)
	t, ok := b.tableOf(FuncRef)
	if !ok || !b.one(3) {
		b.op(0x10, f)
		return s
	}
	if at, ok := b.placed[f]; ok && at.table == t && !b.one(6) {
		b.i32(int32(at.index))
	} else {
		b.index(t, depth)
	}
	b.op(0x11, b.typeOf(f), t)
	return s
}
