package batch

import "encoding/json"

// tokens are what the answers of a batch's lines say that they used.
type tokens struct {
	Input        int64 `json:"input_tokens"`
	InputDetails struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	Output        int64 `json:"output_tokens"`
	OutputDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	Total int64 `json:"total_tokens"`
}

// add counts what an answer used, of a response or in the words of the other
// endpoints; one that does not say counts as nothing.
func (t *tokens) add(answer []byte) {
	var a struct {
		Usage struct {
			tokens
			Prompt        int64 `json:"prompt_tokens"`
			PromptDetails struct {
				Cached int64 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
			Completion        int64 `json:"completion_tokens"`
			CompletionDetails struct {
				Reasoning int64 `json:"reasoning_tokens"`
			} `json:"completion_tokens_details"`
		} `json:"usage"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return
	}
	u := a.Usage
	t.Input += u.Input + u.Prompt
	t.InputDetails.Cached += u.InputDetails.Cached + u.PromptDetails.Cached
	t.Output += u.Output + u.Completion
	t.OutputDetails.Reasoning += u.OutputDetails.Reasoning + u.CompletionDetails.Reasoning
	t.Total += u.Input + u.Prompt + u.Output + u.Completion
}
