package response

import "encoding/json"

// DeltaKind says what a Delta adds to.
type DeltaKind string

// The kinds.
const (
	TextDelta       DeltaKind = "text"
	RefusalDelta    DeltaKind = "refusal"
	ReasoningDelta  DeltaKind = "reasoning"
	SummaryDelta    DeltaKind = "summary"    // of reasoning
	AnnotationDelta DeltaKind = "annotation" // of the text before it: Raw
	CallDelta       DeltaKind = "call"
	// EncryptedDelta ends the reasoning before it: Text is its encrypted form.
	EncryptedDelta DeltaKind = "encrypted"
)

// Delta is a piece of a model call's output.
type Delta struct {
	Kind   DeltaKind
	Index  int    // of the call, in ModelOutput.Calls; of the part, in ModelOutput.Summary
	CallID string // set on each delta of a call
	Name   string // set on each delta of a call
	Text   string // may be empty in the first delta of a call
	// Logprobs are those of Text, an array as Responses has it; nil: none.
	Logprobs json.RawMessage
	Raw      json.RawMessage // an annotation, as Responses has it
}
