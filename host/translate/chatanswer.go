package translate

import (
	"encoding/json"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// chatCompletion is a chat.completion as the host writes it.
type chatCompletion struct {
	ID      string             `json:"id"`
	Object  string             `json:"object"`
	Created int64              `json:"created"` // seconds since 1970
	Model   string             `json:"model"`
	Choices []completionChoice `json:"choices"`
	Usage   *chatUsage         `json:"usage"`
}

type completionChoice struct {
	Index    int           `json:"index"`
	Message  answerMessage `json:"message"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   string        `json:"finish_reason"`
}

type answerMessage struct {
	Role        string            `json:"role"`
	Content     *string           `json:"content"`
	Refusal     *string           `json:"refusal"`
	Reasoning   string            `json:"reasoning_content,omitempty"`
	Annotations []json.RawMessage `json:"annotations,omitempty"`
	ToolCalls   []chatCall        `json:"tool_calls,omitempty"`
}

type chatLogprobs struct {
	Content []json.RawMessage `json:"content"`
	Refusal []json.RawMessage `json:"refusal"`
}

type chatUsage struct {
	Output     int64             `json:"completion_tokens"`
	OutDetails completionDetails `json:"completion_tokens_details"`
	Input      int64             `json:"prompt_tokens"`
	InDetails  promptDetails     `json:"prompt_tokens_details"`
	Total      int64             `json:"total_tokens"`
}

type completionDetails struct {
	Reasoning int64 `json:"reasoning_tokens"`
}

type promptDetails struct {
	Cached     int64 `json:"cached_tokens"`
	CacheWrite int64 `json:"cache_write_tokens,omitempty"`
}

func usageObject(u response.Usage) *chatUsage {
	return &chatUsage{
		Input: u.Input, Output: u.Output, Total: u.Input + u.Output,
		InDetails:  promptDetails{u.Cached, u.CacheWrite},
		OutDetails: completionDetails{u.Reasoning},
	}
}

// ChatCompletion returns the chat.completion object that the answer of a model
// amounts to. created is in seconds since 1970.
func ChatCompletion(o response.ModelOutput, id, model string, created int64) []byte {
	return completion(o, nil, id, model, created)
}

// completion is ChatCompletion; custom says of which calls the arguments are the
// input of a custom tool, by place.
func completion(o response.ModelOutput, custom map[int]bool, id, model string, created int64) []byte {
	msg := answerMessage{Role: "assistant", Reasoning: strings.Join(thoughts(o), summaryGap)}
	if o.Text != "" || o.Refusal == "" && len(o.Calls) == 0 {
		msg.Content = &o.Text
	}
	if o.Refusal != "" {
		msg.Refusal = &o.Refusal
	}
	for _, a := range o.Annotations {
		if n, ok := nested(a); ok {
			msg.Annotations = append(msg.Annotations, n)
		}
	}
	for i, c := range o.Calls {
		call := functionCall(c.ID, c.Name, c.Arguments)
		if custom[i] {
			call = chatCall{ID: c.ID, Type: "custom", Custom: &chatCustom{c.Name, c.Arguments}}
		}
		msg.ToolCalls = append(msg.ToolCalls, call)
	}
	choice := completionChoice{Message: msg, Finish: o.Finish}
	if len(o.Logprobs) > 0 {
		choice.Logprobs = &chatLogprobs{Content: o.Logprobs}
	}
	return marshal(chatCompletion{
		id, "chat.completion", created, model, []completionChoice{choice}, usageObject(o.Usage),
	})
}

// summaryGap stands between two parts of a summary where both are one text.
const summaryGap = "\n\n"

// thoughts are the reasoning and the parts of its summary: Chat Completions has
// one text for them.
func thoughts(o response.ModelOutput) []string {
	if o.Reasoning == "" {
		return o.Summary
	}
	return append([]string{o.Reasoning}, o.Summary...)
}
