package capability

import (
	"context"
	"errors"
)

// Tools calls other tools for a tool: as recorded steps in the scope of the
// caller's step.
type Tools interface {
	// Call calls tool with arguments, a JSON object that is not checked yet.
	// n counts the calls of one try from 0: a later try that asks the same in
	// the same order gets the recorded results. A tool that failed is a
	// ToolReply, not an error. Errors wrap one of ErrNoTool, ErrRefused and
	// ErrExhausted; any other ends the caller's call.
	Call(ctx context.Context, n int, tool string, arguments []byte) (ToolReply, error)
}

// What Tools may say instead of calling a tool.
var (
	ErrNoTool    = errors.New("capability: no such tool")
	ErrRefused   = errors.New("capability: call refused") // a cycle, too deep, or not allowed
	ErrExhausted = errors.New("capability: no calls left")
)

// ToolReply is how a nested call of a tool ended.
type ToolReply struct {
	// Output is what a model would be given, of a failure too: text.
	Output []byte
	// IsError: the tool answered, and says that its output tells of a failure.
	IsError bool
	// Code is "" for a tool that answered; otherwise a closed word: the name
	// of its fail code, or the outcome class where it did not fail by itself.
	Code string
}
