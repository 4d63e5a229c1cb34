package demo

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"unicode/utf8"
)

// created is the time in every answer: equal requests get equal answers.
const created = 1_700_000_000

// A chatRequest is what the server reads of a Chat Completions request.
type chatRequest struct {
	Model               string          `json:"model"`
	Messages            []message       `json:"messages"`
	Tools               []toolOffer     `json:"tools"`
	ToolChoice          json.RawMessage `json:"tool_choice"`
	ParallelToolCalls   *bool           `json:"parallel_tool_calls"`
	Stream              bool            `json:"stream"`
	StreamOptions       streamOptions   `json:"stream_options"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type toolOffer struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text returns the text of a message: its string, or its text parts.
func (m message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	var texts []string
	for _, p := range parts {
		if p.Type == "text" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}

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
	var q chatRequest
	if err := json.Unmarshal(r.Body, &q); err != nil {
		writeError(o.w, http.StatusBadRequest, "the body is not a chat completion request")
		return
	}
	for i := range t.Calls {
		if t.Calls[i].ID == "" {
			t.Calls[i].ID = fmt.Sprintf("call_%s_%d", digest(r.Body), i)
		}
	}
	a := chatAnswer{ID: "chatcmpl-" + digest(r.Body), Object: "chat.completion", Created: created, Model: q.Model}
	if q.Stream {
		a.Object = "chat.completion.chunk"
		streamChat(o, a, t, usageOf(q, t), q.StreamOptions.IncludeUsage)
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
	size := t.ChunkRunes
	if size <= 0 { // a long text in at most a few hundred chunks
		size = max(8, utf8.RuneCountInString(t.Text)/256)
	}
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

func usageOf(q chatRequest, t Turn) *chatUsage {
	u := t.Usage
	if u == nil {
		u = &Usage{Reasoning: words(t.Reasoning)}
		for _, m := range q.Messages {
			u.Input += words(m.text())
		}
		u.Output = words(t.Text) + words(t.Refusal) + u.Reasoning
		for _, c := range t.Calls {
			u.Output += 1 + words(c.Arguments)
		}
	}
	return &chatUsage{
		PromptTokens: u.Input, CompletionTokens: u.Output, TotalTokens: u.Input + u.Output,
		PromptDetails: &promptDetails{Cached: u.Cached}, OutputDetails: &outputDetails{Reasoning: u.Reasoning},
	}
}

func words(s string) int64 { return int64(len(strings.Fields(s))) }

// split cuts s into pieces of n runes.
func split(s string, n int) []string {
	var pieces []string
	count, start := 0, 0
	for i := range s {
		if count == n {
			pieces = append(pieces, s[start:i])
			count, start = 0, i
		}
		count++
	}
	if start < len(s) {
		pieces = append(pieces, s[start:])
	}
	return pieces
}

// digest names a request: the ids made from it are the same in every process
// and differ between the turns of a conversation.
func digest(b []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash never fails
	return fmt.Sprintf("%016x", h.Sum64())
}
