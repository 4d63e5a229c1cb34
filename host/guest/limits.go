package guest

import (
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// wall returns the time that a call of t gets under l: what the tool asks for,
// cut to what it may have. 0 is the default of package plugins.
func wall(t abi.ToolDescriptor, l plugins.Limits) time.Duration {
	asked := time.Duration(t.TimeoutMS) * time.Millisecond
	if asked <= 0 || l.Wall > 0 && l.Wall < asked {
		return l.Wall
	}
	return asked
}
