// Package translate says one model call in the words of an upstream's API,
// Chat Completions or Responses, and reads its answer, and turns a client's
// chat completion into a call of an upstream that speaks Responses and back. It
// does no I/O, plans nothing and emits no events.
package translate

import (
	"errors"
	"slices"

	"github.com/casemate/casemate/host/response"
)

// The errors of a Reader.
var (
	// ErrCut: the answer ended before it said how it ends.
	ErrCut = errors.New("the answer was cut")
	// ErrEnvelope: an error stands in place of an answer, under a status of
	// success.
	ErrEnvelope = errors.New("the answer holds an error")
	// ErrMalformed: the answer is not one of this API. The error holds nothing of
	// it.
	ErrMalformed = errors.New("the answer cannot be read")
)

// Reader gathers the output of one model call from the events of its stream, or
// from one body. Unknown fields and odd types do no harm. It is not safe for
// concurrent use.
type Reader interface {
	// Chunk adds the data of one event of a stream and returns what it adds to
	// the output. "[DONE]" and nothing are fine. The error wraps ErrEnvelope or
	// ErrMalformed. It keeps nothing of data.
	Chunk(data []byte) ([]response.Delta, error)
	// Body adds a whole answer. The errors are Chunk's.
	Body(data []byte) ([]response.Delta, error)
	// Output returns what was gathered. The error wraps ErrCut.
	Output() (response.ModelOutput, error)
	// Usage returns the tokens counted so far, for a try that ends without Output.
	Usage() response.Usage
}

// Call is the next model call of a response, or of an agent of it.
type Call struct {
	Brief response.Brief
	Steps []response.Step       // of one scope, so far
	Tools []response.ServerTool // those that may be offered
}

// first reports whether no model call has ended well yet.
func (c Call) first() bool {
	return !slices.ContainsFunc(c.Steps, func(s response.Step) bool {
		return s.Kind == response.ModelCall && s.State == response.Completed
	})
}

// left returns how many tokens the model may yet write; nil: as many as it likes.
func (c Call) left() *int64 {
	most := c.Brief.Request.MaxOutputTokens
	if most == nil {
		return nil
	}
	left := max(1, *most-response.TotalUsage(c.Steps).Output)
	return &left
}
