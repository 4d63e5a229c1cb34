package demo

import (
	"net/http"
)

// created is the time in every answer: equal requests get equal answers.
const created = 1_700_000_000

// The parts of an answer.
type (
	chatAnswer struct {
		ID      string       `json:"id"`
		Object  string       `json:"object"`
		Created int64        `json:"created"`
		Model   string       `json:"model"`
		Choices []chatChoice `json:"choices"`
		Usage   *chatUsage   `json:"usage,omitempty"`
	}
	chatChoice struct {
		Index   int        `json:"index"`
		Message *chatDelta `json:"message,omitempty"`
		Delta   *chatDelta `json:"delta,omitempty"`
		Finish  *string    `json:"finish_reason"`
	}
	chatDelta struct {
		Role      string     `json:"role,omitempty"`
		Content   *string    `json:"content,omitempty"`
		Reasoning string     `json:"reasoning_content,omitempty"`
		Refusal   string     `json:"refusal,omitempty"`
		ToolCalls []chatCall `json:"tool_calls,omitempty"`
	}
	chatCall struct {
		Index    *int         `json:"index,omitempty"` // in streams only
		ID       string       `json:"id,omitempty"`
		Type     string       `json:"type,omitempty"`
		Function chatFunction `json:"function"`
	}
	chatFunction struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	}
	chatUsage struct {
		PromptTokens     int64          `json:"prompt_tokens"`
		CompletionTokens int64          `json:"completion_tokens"`
		TotalTokens      int64          `json:"total_tokens"`
		PromptDetails    *promptDetails `json:"prompt_tokens_details,omitempty"`
		OutputDetails    *outputDetails `json:"completion_tokens_details,omitempty"`
	}
	promptDetails struct {
		Cached int64 `json:"cached_tokens"`
	}
	outputDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
	}
)

// serveChat answers a Chat Completions request with t.
func serveChat(o *writer, r Request, t Turn) {
	q, ok := r.read()
	if !ok {
		writeError(o.w, http.StatusBadRequest, "the body is not a chat completion request")
		return
	}
	t.Calls = nameCalls(t.Calls, r.Body)
	a := chatAnswer{ID: "chatcmpl-" + digest(r.Body), Object: "chat.completion", Created: created, Model: q.Model}
	if q.Stream {
		a.Object = "chat.completion.chunk"
		streamChat(o, a, t, usageOf(q, t), q.StreamOptions.IncludeUsage)
		return
	}
	if t.Failure != "" {
		o.json(failureOf(t))
		return
	}
	d := chatDelta{Role: "assistant", Reasoning: t.Reasoning, Refusal: t.Refusal}
	if t.Text != "" || len(t.Calls) == 0 {
		d.Content = &t.Text
	}
	for _, c := range t.Calls {
		d.ToolCalls = append(d.ToolCalls, chatCall{
			ID: c.ID, Type: "function", Function: chatFunction{Name: c.Name, Arguments: c.Arguments},
		})
	}
	a.Choices = []chatChoice{{Message: &d, Finish: finishOf(t)}}
	a.Usage = usageOf(q, t)
	o.json(a)
}

// streamChat sends t as chunks: role, reasoning, text, calls, finish, usage.
func streamChat(o *writer, a chatAnswer, t Turn, u *chatUsage, usage bool) {
	o.head("text/event-stream")
	send := func(d chatDelta, finish *string) {
		a.Choices = []chatChoice{{Delta: &d, Finish: finish}}
		o.jsonEvent(a)
	}
	empty := ""
	send(chatDelta{Role: "assistant", Content: &empty}, nil)
	size := t.chunkRunes()
	for _, s := range split(t.Reasoning, size) {
		send(chatDelta{Reasoning: s}, nil)
	}
	for _, s := range split(t.Text, size) {
		send(chatDelta{Content: &s}, nil)
	}
	for _, s := range split(t.Refusal, size) {
		send(chatDelta{Refusal: s}, nil)
	}
	for i, c := range t.Calls {
		send(chatDelta{ToolCalls: []chatCall{{
			Index: &i, ID: c.ID, Type: "function", Function: chatFunction{Name: c.Name},
		}}}, nil)
		for _, s := range split(c.Arguments, size) {
			send(chatDelta{ToolCalls: []chatCall{{Index: &i, Function: chatFunction{Arguments: s}}}}, nil)
		}
	}
	if t.Failure != "" {
		o.jsonEvent(failureOf(t))
		return
	}
	if finish := finishOf(t); finish != nil {
		send(chatDelta{}, finish)
	}
	if usage {
		a.Choices, a.Usage = []chatChoice{}, u
		o.jsonEvent(a)
	}
	if !t.NoDone {
		o.event("[DONE]")
	}
}

func finishOf(t Turn) *string {
	finish := t.Finish
	switch {
	case finish == "-":
		return nil
	case finish == "" && len(t.Calls) > 0:
		finish = "tool_calls"
	case finish == "":
		finish = "stop"
	}
	return &finish
}

func usageOf(q request, t Turn) *chatUsage {
	u := t.usage(q)
	return &chatUsage{
		PromptTokens: u.Input, CompletionTokens: u.Output, TotalTokens: u.Input + u.Output,
		PromptDetails: &promptDetails{Cached: u.Cached}, OutputDetails: &outputDetails{Reasoning: u.Reasoning},
	}
}
