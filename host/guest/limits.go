package guest

import (
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/sdk/abi"
)

// The fuel and time of a decision, unless its source says otherwise. They are
// those of package plugins; said here, half of them can be asked for.
const (
	policyFuel = 2 * plugintest.HalfBudget
	policyWall = 100 * time.Millisecond
)

// over returns base with what l sets in its place.
func over(base, l plugins.Limits) plugins.Limits {
	put(&base.Fuel, l.Fuel)
	put(&base.Wall, l.Wall)
	put(&base.MemoryBytes, l.MemoryBytes)
	put(&base.OutputBytes, l.OutputBytes)
	put(&base.LogLines, l.LogLines)
	put(&base.LogBytes, l.LogBytes)
	put(&base.Emits, l.Emits)
	put(&base.Calls, l.Calls)
	return base
}

func put[T comparable](dst *T, v T) {
	var unset T
	if v != unset {
		*dst = v
	}
}

// wall returns the time that a call of t gets under l: what the tool asks for,
// cut to what it may have. 0 is the default of package plugins.
func wall(t abi.ToolDescriptor, l plugins.Limits) time.Duration {
	asked := time.Duration(t.TimeoutMS) * time.Millisecond
	if asked <= 0 || l.Wall > 0 && l.Wall < asked {
		return l.Wall
	}
	return asked
}
