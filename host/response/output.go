package response

import (
	"encoding/json"
	"fmt"
)

// The reasons for which a model ends that change the plan.
const (
	finishLength = "length"
	finishFilter = "content_filter"
)

// ModelOutput is the output of a completed model call.
type ModelOutput struct {
	Text      string   `json:"text,omitempty"`
	Refusal   string   `json:"refusal,omitempty"`
	Reasoning string   `json:"reasoning,omitempty"`
	Summary   []string `json:"summary,omitempty"` // of the reasoning, by part
	// Encrypted is the reasoning in a form that only its upstream reads. It goes
	// back to an upstream of kind responses in the next model call, and to a
	// client that asked for it.
	Encrypted   string            `json:"encrypted,omitempty"`
	Annotations []json.RawMessage `json:"annotations,omitempty"` // of Text, as Responses has them
	Logprobs    []json.RawMessage `json:"logprobs,omitempty"`    // of Text, as Responses has them
	Calls       []Call            `json:"calls,omitempty"`       // in the order in which they began
	Finish      string            `json:"finish"`                // "stop", "length", "tool_calls", "content_filter", …
	Model       string            `json:"model,omitempty"`       // upstream's name
	Usage       Usage             `json:"usage"`
}

// Call is one tool call of a model. Arguments are as the model wrote them, {}
// where it wrote none.
type Call struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Encode returns the bytes kept as Step.Output.
func (o ModelOutput) Encode() []byte { return marshal(o) }

// DecodeModelOutput reads what Encode wrote.
func DecodeModelOutput(b []byte) (ModelOutput, error) {
	var o ModelOutput
	if err := json.Unmarshal(b, &o); err != nil {
		return ModelOutput{}, fmt.Errorf("response: decode model output: %w", err)
	}
	return o, nil
}
