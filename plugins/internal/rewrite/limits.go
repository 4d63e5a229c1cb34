package rewrite

import "fmt"

// The structure that a module may have. Compilers need time and memory by these
// numbers, some of them more than linearly; real guests stay far below.
const (
	maxBinary    = 16 << 20
	maxOutput    = 64 << 20
	maxTypes     = 1 << 14
	maxParams    = 1000 // and results
	maxImports   = 1 << 12
	maxFunctions = 1 << 16 // with code
	maxTables    = 100
	maxTable     = 1 << 20 // elements at the start, all tables together
	maxGrown     = 1 << 16 // elements that a table may grow to that does not start with more
	maxGlobals   = 1 << 15
	maxExports   = 1 << 16
	maxElems     = 1 << 16
	maxElemItems = 1 << 20 // all segments together
	maxData      = 1 << 17
	maxBody      = 1 << 20 // bytes
	maxLocals    = 2000    // parameters not counted
	maxNesting   = 1 << 14
	maxLoops     = 1 << 8 // one in another
	maxBrTable   = 1 << 16
	maxBlocks    = 1 << 14 // basic blocks in a function; one in loops counts for each of them, too
	maxLive      = 1 << 21 // values times basic blocks
	maxMeetings  = 1 << 18 // assigned locals times places where ways meet, in a function
	maxMarks     = 1 << 22 // basic blocks and calls, all functions together
	maxMoves     = 1 << 25 // operands that calls, blocks and branches take and give, all together
	maxReasons   = 16      // named, of those why a module is not restorable
	maxPages     = 1 << 16
)

func atMost(what string, n, most uint64, offset int) error {
	if n <= most {
		return nil
	}
	return fmt.Errorf("%w: %d %s at byte %d, more than %d", ErrTooLarge, n, what, offset, most)
}
