// Package processor takes a claim to its outcome, by path: /v1/responses and
// /mcp go to the loop, everything else is one upstream call. It claims nothing and
// writes nothing; the claimer commits what it returns.
package processor

import (
	"context"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// The paths whose claims go to the loop; only exactly these.
const (
	ResponsesPath = "/v1/responses"
	ToolsPath     = "/mcp" // a tool call without a model
)

// Stage takes a claim to an ending.
type Stage interface {
	Process(ctx context.Context, c queue.Claim) (store.Ending, error)
}

// Processor dispatches claims by path.
type Processor struct {
	Responses Stage // the loop
	Default   Stage // one upstream call
}

// Process hands c to the stage of its path.
func (p Processor) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	if c.Path == ResponsesPath || c.Path == ToolsPath {
		return p.Responses.Process(ctx, c)
	}
	return p.Default.Process(ctx, c)
}
