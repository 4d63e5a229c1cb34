package engine_test

// deviation is a way in which wazero itself, with the features of version 2,
// does not do what a script asks for.
type deviation struct{ version, command, text, got string }

// deviations counts them. Version 1 of the suite is from before multi-value,
// reference types and bulk memory.
var deviations = map[deviation]int{
	// Valid since multi-value.
	{"v1", "assert_invalid", "invalid result arity", "ok"}: 4,
	// Valid since reference types: a module may have several tables, and dead
	// code is typed as in version 2.
	{"v1", "assert_invalid", "multiple tables", "ok"}: 1,
	{"v1", "assert_invalid", "type mismatch", "ok"}:   1,
	// Since bulk memory a segment that does not fit traps, when those before it
	// are written; later commands see what they wrote.
	{"v1", "assert_unlinkable", "data segment does not fit", "out of bounds memory access"}: 17,
	{"v1", "assert_trap", "uninitialized", "ok"}:                                            2,
	{"v1", "assert_return", "", "ok"}:                                                       2,
	// wazero instantiates a module whose element segment does not fit, for its
	// functions may be in a shared table already.
	{"v1", "assert_unlinkable", "elements segment does not fit", "ok"}:  15,
	{"v2", "assert_uninstantiable", "out of bounds table access", "ok"}: 15,
	// wazero lets constant expressions read mutable imported globals, and finds
	// nothing wrong but that the import is missing.
	{"v2", "assert_invalid", "constant expression required", "unlinkable"}: 5,
}

// textCommands counts, by version, the commands about modules in the text
// format, which nothing here reads.
var textCommands = map[string]int{"v1": 430, "v2": 1091}

// refused lists what the rewriter refuses, which wazero knows but does not
// compile either unless it is told to: the part of the suite that has it, and
// how the rewriter names it.
var refused = []struct{ suite, feature string }{
	{"tail-call", "tail calls"},
	{"extended-const", "extended constant expressions"},
	{"threads", "threads"},
	{"exception-handling", "exceptions"},
	{"typed-function-references", "typed references"},
}
