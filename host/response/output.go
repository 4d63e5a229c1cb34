package response

import (
	"encoding/json"
	"fmt"
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

// readUsage reads the usage of a chat completion. What is missing or odd
// counts as 0: a new field must not lose the rest.
func readUsage(raw json.RawMessage) Usage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return Usage{}
	}
	var in, out map[string]json.RawMessage
	_ = json.Unmarshal(m["prompt_tokens_details"], &in)
	_ = json.Unmarshal(m["completion_tokens_details"], &out)
	return Usage{
		Input: count(m["prompt_tokens"]), Output: count(m["completion_tokens"]),
		Cached: count(in["cached_tokens"]), CacheWrite: count(in["cache_write_tokens"]),
		Reasoning: count(out["reasoning_tokens"]),
	}
}

func count(raw json.RawMessage) int64 {
	var n float64
	if json.Unmarshal(raw, &n) != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return int64(n)
}

// ChatCompletion returns the chat.completion object that the chunks of a
// streamed chat completion amount to. created is in seconds since 1970.
func (o ModelOutput) ChatCompletion(id, model string, created int64) []byte {
	msg := struct {
		Role      string     `json:"role"`
		Content   *string    `json:"content"`
		Refusal   *string    `json:"refusal"`
		Reasoning string     `json:"reasoning_content,omitempty"`
		ToolCalls []chatCall `json:"tool_calls,omitempty"`
	}{Role: "assistant", Reasoning: o.Reasoning}
	if o.Text != "" || o.Refusal == "" && len(o.Calls) == 0 {
		msg.Content = &o.Text
	}
	if o.Refusal != "" {
		msg.Refusal = &o.Refusal
	}
	for _, c := range o.Calls {
		msg.ToolCalls = append(msg.ToolCalls, chatCall{c.ID, "function", chatFunction{c.Name, c.Arguments}})
	}
	type choice struct {
		Index    int    `json:"index"`
		Message  any    `json:"message"`
		Logprobs any    `json:"logprobs"`
		Finish   string `json:"finish_reason"`
	}
	u := o.Usage
	return marshal(struct {
		ID      string         `json:"id"`
		Object  string         `json:"object"`
		Created int64          `json:"created"`
		Model   string         `json:"model"`
		Choices []choice       `json:"choices"`
		Usage   map[string]any `json:"usage"`
	}{
		id, "chat.completion", created, model,
		[]choice{{0, msg, nil, o.Finish}},
		map[string]any{
			"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Input + u.Output,
			"prompt_tokens_details":     map[string]any{"cached_tokens": u.Cached},
			"completion_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
		},
	})
}
