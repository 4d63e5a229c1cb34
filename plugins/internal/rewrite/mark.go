package rewrite

// mark is a place in a body where the rewritten one differs.
type mark struct {
	pos  uint32 // in the body, after its locals
	val  uint32
	of   int32 // markExit: the mark that its block is charged by; markLoop: units that are never paid back
	kind markKind
	held bool // the fuel local holds what the global does
}

type markKind byte

const (
	markBlock        markKind = iota // val instructions are charged
	markBefore                       // a loop; val: 1 when there are no calls inside
	markLoop                         // val instructions are charged and fuel is checked
	markExit                         // a br_if; its block charged val instructions up to it
	markCall                         // of function val
	markCallIndirect                 //
	markRefFunc                      // of function val
	markMemoryCopy                   // the length says what it costs
	markMemoryFill                   //
	markMemoryInit                   //
	markMemoryGrow                   //
	markTableGrow                    //
	markTableFill                    //
	markTableCopy                    //
	markTableInit                    //
)

// body is a function as the validation left it.
type body struct {
	code        []byte // instructions, with the last end
	locals      []byte // declarations with their count
	groups      uint32 // how many declarations
	localsCount uint32 // parameters included
	marks       [2]int // of module.marks: from and to
	frame       uint32 // bytes of stack
	calls       uint32 // of other functions
	yields      bool   // has a loop or an operation charged by a length
	cost        uint64 // of all its blocks
	scratch     byte   // how many scratch locals it needs, i32
	holds       bool   // it has a fuel local
}
