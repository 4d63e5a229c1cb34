package plugins

import (
	"runtime"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// The defaults of Limits.
const (
	policyFuel   = 50_000_000
	policyWall   = 100 * time.Millisecond
	policyMemory = 16 << 20
	policyOutput = 16 << 10
	toolFuel     = 500_000_000
	toolWall     = 30 * time.Second
	toolMemory   = 64 << 20
	toolOutput   = 1 << 20

	defaultLogLines = 1000
	defaultLogBytes = 256 << 10
	defaultEmits    = 100
	defaultCalls    = 256
)

// DefaultLimits returns the limits of a call of entry that says nothing else.
func DefaultLimits(entry string) Limits {
	l := Limits{
		Fuel: toolFuel, Wall: toolWall, MemoryBytes: toolMemory, OutputBytes: toolOutput,
		LogLines: defaultLogLines, LogBytes: defaultLogBytes, Emits: defaultEmits, Calls: defaultCalls,
	}
	if pure(entry) {
		l.Fuel, l.Wall, l.MemoryBytes, l.OutputBytes = policyFuel, policyWall, policyMemory, policyOutput
	}
	return l
}

// Over returns l with base where l sets nothing.
func (l Limits) Over(base Limits) Limits {
	fill(&l.Fuel, base.Fuel)
	fill(&l.Wall, base.Wall)
	fill(&l.MemoryBytes, base.MemoryBytes)
	fill(&l.OutputBytes, base.OutputBytes)
	fill(&l.LogLines, base.LogLines)
	fill(&l.LogBytes, base.LogBytes)
	fill(&l.Emits, base.Emits)
	fill(&l.Calls, base.Calls)
	return l
}

func fill[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// pure reports whether an entry is a policy's: a function of its input alone.
func pure(entry string) bool { return entry == abi.ExportRoute || entry == abi.ExportRetry }

// How many calls of one plugin and tenant run at once. Policies only compute,
// so more than the processors need would only make all of them slower; tools
// wait for networks.
var (
	policiesAtOnce = max(4, 2*runtime.GOMAXPROCS(0))
	toolsAtOnce    = 64
)

func atOnce(entry string) int {
	if pure(entry) {
		return policiesAtOnce
	}
	return toolsAtOnce
}
