package response

import "time"

// Caps bound one response; they are held against its chain, so neither a retry
// nor a crash resets them. Zero fields mean the default.
type Caps struct {
	ModelCalls int           // 10
	ToolCalls  int           // 64; skipped ones do not count
	Steps      int           // 128
	Tokens     int64         // input and output of all model calls; 0: no cap
	Wall       time.Duration // age of the response; 0: no cap
	FanOut     int           // tool calls that run at once: 8
}

func (c Caps) withDefaults() Caps {
	c.ModelCalls = orDefault(c.ModelCalls, 10)
	c.ToolCalls = orDefault(c.ToolCalls, 64)
	c.Steps = orDefault(c.Steps, 128)
	c.FanOut = orDefault(c.FanOut, 8)
	return c
}

// Room reports whether a tool call may be added to a response that has so many
// steps, and so many tool calls that were not skipped, nested ones included.
func (c Caps) Room(steps, calls int) bool {
	c = c.withDefaults()
	return steps < c.Steps && calls < c.ToolCalls
}

func orDefault(n, unset int) int {
	if n <= 0 {
		return unset
	}
	return n
}

// TotalUsage sums the usage of steps.
func TotalUsage(steps []Step) Usage {
	var u Usage
	for _, s := range steps {
		u = u.Add(s.Usage)
	}
	return u
}
