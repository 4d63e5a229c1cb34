package demo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

const responsesPath = "/v1/responses"

// The parts of a response.
type (
	responseObject struct {
		ID                string            `json:"id"`
		Object            string            `json:"object"`
		CreatedAt         int64             `json:"created_at"`
		CompletedAt       *int64            `json:"completed_at"`
		Status            string            `json:"status"`
		Background        bool              `json:"background"`
		Error             *failure          `json:"error"`
		Incomplete        *incomplete       `json:"incomplete_details"`
		Instructions      *string           `json:"instructions"`
		MaxOutputTokens   *int              `json:"max_output_tokens"`
		MaxToolCalls      *int              `json:"max_tool_calls"`
		Model             string            `json:"model"`
		Output            []any             `json:"output"`
		ParallelToolCalls bool              `json:"parallel_tool_calls"`
		Previous          *string           `json:"previous_response_id"`
		PromptCacheKey    *string           `json:"prompt_cache_key"`
		Reasoning         json.RawMessage   `json:"reasoning"`
		SafetyIdentifier  *string           `json:"safety_identifier"`
		ServiceTier       string            `json:"service_tier"`
		Store             bool              `json:"store"`
		Temperature       float64           `json:"temperature"`
		PresencePenalty   float64           `json:"presence_penalty"`
		FrequencyPenalty  float64           `json:"frequency_penalty"`
		Text              json.RawMessage   `json:"text"`
		ToolChoice        json.RawMessage   `json:"tool_choice"`
		Tools             []json.RawMessage `json:"tools"`
		TopLogprobs       int               `json:"top_logprobs"`
		TopP              float64           `json:"top_p"`
		Truncation        string            `json:"truncation"`
		Usage             *responseUsage    `json:"usage"`
		User              *string           `json:"user"`
		Metadata          map[string]string `json:"metadata"`
	}
	incomplete struct {
		Reason string `json:"reason"`
	}
	responseUsage struct {
		Input        int64         `json:"input_tokens"`
		InputDetails inputDetails  `json:"input_tokens_details"`
		Output       int64         `json:"output_tokens"`
		Details      outputDetails `json:"output_tokens_details"`
		Total        int64         `json:"total_tokens"`
	}
	inputDetails struct {
		Cached  int64 `json:"cached_tokens"`
		Written int64 `json:"cache_write_tokens"`
	}
	reasoningItem struct {
		ID        string        `json:"id"`
		Type      string        `json:"type"`
		Status    string        `json:"status"`
		Summary   []contentPart `json:"summary"`
		Content   []contentPart `json:"content"`
		Encrypted string        `json:"encrypted_content,omitempty"`
	}
	messageItem struct {
		ID      string        `json:"id"`
		Type    string        `json:"type"`
		Status  string        `json:"status"`
		Role    string        `json:"role"`
		Content []contentPart `json:"content"`
	}
	callItem struct {
		ID        string  `json:"id"`
		Type      string  `json:"type"`
		Status    string  `json:"status"`
		CallID    string  `json:"call_id"`
		Name      string  `json:"name"`
		Arguments *string `json:"arguments,omitempty"`
		Input     *string `json:"input,omitempty"`
	}
	contentPart struct {
		Type        string  `json:"type"`
		Text        *string `json:"text,omitempty"`
		Refusal     *string `json:"refusal,omitempty"`
		Annotations *[]any  `json:"annotations,omitempty"`
		Logprobs    *[]any  `json:"logprobs,omitempty"`
	}
)

func summaryPart(s string) contentPart { return contentPart{Type: "summary_text", Text: &s} }

func textPart(s string) contentPart {
	return contentPart{Type: "output_text", Text: &s, Annotations: &[]any{}, Logprobs: &[]any{}}
}

func refusalPart(s string) contentPart { return contentPart{Type: "refusal", Refusal: &s} }

// serveResponses answers a Responses request with t.
func serveResponses(o *writer, r Request, t Turn) {
	var q responsesRequest
	err := json.Unmarshal(r.Body, &q)
	g, ok := q.general()
	if err != nil || !ok {
		writeError(o.w, http.StatusBadRequest, "the body is not a response request")
		return
	}
	t.Calls = nameCalls(t.Calls, r.Body)
	if !slices.Contains(q.Include, "reasoning.encrypted_content") {
		t.Encrypted = ""
	}
	a := &answer{o: o, t: t, id: digest(r.Body), tools: q.named(), response: objectOf(q, digest(r.Body))}
	if q.Stream {
		o.head("text/event-stream")
		a.announce()
	} else {
		a.o = nil
	}
	a.reason()
	a.speak()
	for i := range t.Calls {
		a.call(i)
	}
	a.o = o
	a.end(t.usage(g), q.Stream)
}

// objectOf is the response before anything of it is known.
func objectOf(q responsesRequest, id string) responseObject {
	r := responseObject{
		ID: "resp_" + id, Object: "response", CreatedAt: created, Status: "in_progress",
		Instructions: q.Instructions, MaxOutputTokens: q.MaxOutputTokens, Model: q.Model, Output: []any{},
		ParallelToolCalls: q.ParallelToolCalls == nil || *q.ParallelToolCalls, Store: q.Store == nil || *q.Store,
		ToolChoice: q.ToolChoice, Tools: q.Tools, Truncation: "disabled", Metadata: map[string]string{},
		ServiceTier: "default", Temperature: 1, TopP: 1, Reasoning: json.RawMessage(`{"effort":null,"summary":null}`),
		Text: json.RawMessage(`{"format":{"type":"text"},"verbosity":"medium"}`),
	}
	if r.ToolChoice == nil {
		r.ToolChoice = json.RawMessage(`"auto"`)
	}
	if r.Tools == nil {
		r.Tools = []json.RawMessage{}
	}
	return r
}

// An answer is a response that is being said.
type answer struct {
	o        *writer // nil: nothing is streamed
	t        Turn
	id       string
	tools    []namedTool
	response responseObject
	events   int
}

// members are those of an event beside its type and number.
type members map[string]any

// send sends an event: its type and its number come first, as everywhere.
func (a *answer) send(kind string, m members) {
	if a.o == nil {
		return
	}
	rest, err := json.Marshal(m)
	if err != nil {
		abort()
	}
	a.o.namedEvent(kind, fmt.Sprintf(`{"type":%q,"sequence_number":%d,%s`, kind, a.events, rest[1:]))
	a.events++
}

func (a *answer) announce() {
	for _, kind := range []string{"response.created", "response.in_progress"} {
		a.send(kind, members{"response": a.response})
	}
}

// item sends an item: how it begins, what lies between, and as it is in the end.
func (a *answer) item(begun, whole any, between func(at members)) {
	at := len(a.response.Output)
	a.send("response.output_item.added", members{"output_index": at, "item": begun})
	between(members{"output_index": at})
	a.send("response.output_item.done", members{"output_index": at, "item": whole})
	a.response.Output = append(a.response.Output, whole)
}

// with returns what all events of a part have in common, and more.
func (m members) with(more members) members {
	all := members{}
	for _, from := range []members{m, more} {
		for k, v := range from {
			all[k] = v
		}
	}
	return all
}

// pieces sends a text in deltas, then whole; done are more members of that.
func (a *answer) pieces(kind string, at members, text string, done members) {
	for _, s := range split(text, a.t.chunkRunes()) {
		a.send(kind+".delta", at.with(members{"delta": s}))
	}
	a.send(kind+".done", at.with(done))
}

func (a *answer) reason() {
	if a.t.Reasoning == "" && a.t.Encrypted == "" {
		return
	}
	it := reasoningItem{ID: "rs_" + a.id, Type: "reasoning", Status: "in_progress", Summary: []contentPart{}, Content: []contentPart{}}
	whole := it
	whole.Status, whole.Encrypted = "completed", a.t.Encrypted
	if a.t.Reasoning != "" {
		whole.Summary = []contentPart{summaryPart(a.t.Reasoning)}
	}
	a.item(it, whole, func(at members) {
		if a.t.Reasoning == "" {
			return
		}
		at = at.with(members{"item_id": it.ID, "summary_index": 0})
		a.send("response.reasoning_summary_part.added", at.with(members{"part": summaryPart("")}))
		a.pieces("response.reasoning_summary_text", at, a.t.Reasoning, members{"text": a.t.Reasoning})
		a.send("response.reasoning_summary_part.done", at.with(members{"part": whole.Summary[0]}))
	})
}

// speak says the text and the refusal; of an answer with calls or a refusal the
// text may be missing.
func (a *answer) speak() {
	type saying struct {
		kind, text, field string
		part              func(string) contentPart
		more              members
	}
	var all []saying
	if a.t.Text != "" || a.t.Refusal == "" && len(a.t.Calls) == 0 {
		all = append(all, saying{"response.output_text", a.t.Text, "text", textPart, members{"logprobs": []any{}}})
	}
	if a.t.Refusal != "" {
		all = append(all, saying{"response.refusal", a.t.Refusal, "refusal", refusalPart, nil})
	}
	if len(all) == 0 {
		return
	}
	it := messageItem{ID: "msg_" + a.id, Type: "message", Status: "in_progress", Role: "assistant", Content: []contentPart{}}
	whole := it
	whole.Status = "completed"
	if a.t.incomplete() != nil {
		whole.Status = "incomplete"
	}
	for _, s := range all {
		whole.Content = append(whole.Content, s.part(s.text))
	}
	a.item(it, whole, func(at members) {
		for i, s := range all {
			at := at.with(members{"item_id": it.ID, "content_index": i})
			a.send("response.content_part.added", at.with(members{"part": s.part("")}))
			a.pieces(s.kind, at.with(s.more), s.text, members{s.field: s.text})
			a.send("response.content_part.done", at.with(members{"part": whole.Content[i]}))
		}
	})
}

// call makes tool call i. Of a custom tool its arguments are the input.
func (a *answer) call(i int) {
	c := a.t.Calls[i]
	empty := ""
	it := callItem{Status: "in_progress", CallID: c.ID, Name: c.Name}
	whole := it
	whole.Status = "completed"
	kind, done := "response.function_call_arguments", members{"name": c.Name, "arguments": c.Arguments}
	if slices.Contains(a.tools, namedTool{"custom", c.Name}) {
		kind, done = "response.custom_tool_call_input", members{"input": c.Arguments}
		it.ID, it.Type, it.Input = fmt.Sprintf("ctc_%s_%d", a.id, i), "custom_tool_call", &empty
		whole.Input = &c.Arguments
	} else {
		it.ID, it.Type, it.Arguments = fmt.Sprintf("fc_%s_%d", a.id, i), "function_call", &empty
		whole.Arguments = &c.Arguments
	}
	whole.ID, whole.Type = it.ID, it.Type
	a.item(it, whole, func(at members) {
		a.pieces(kind, at.with(members{"item_id": it.ID}), c.Arguments, done)
	})
}

// incomplete says why the response is; nil: it is whole.
func (t Turn) incomplete() *incomplete {
	switch t.Finish {
	case "length":
		return &incomplete{"max_output_tokens"}
	case "content_filter":
		return &incomplete{"content_filter"}
	}
	return nil
}

// end ends the response.
func (a *answer) end(u Usage, stream bool) {
	r := &a.response
	r.Usage = &responseUsage{
		Input: u.Input, InputDetails: inputDetails{Cached: u.Cached}, Output: u.Output, Details: outputDetails{u.Reasoning}, Total: u.Input + u.Output,
	}
	r.Incomplete = a.t.incomplete()
	switch {
	case a.t.Failure != "":
		r.Status, r.Incomplete = "failed", nil
		r.Error = &failure{Code: a.t.Failure, Message: "the demo model failed as it was told to"}
	case r.Incomplete != nil:
		r.Status = "incomplete"
	case a.t.Finish != "-":
		at := int64(created)
		r.Status, r.CompletedAt = "completed", &at
	}
	switch {
	case !stream:
		a.o.json(r)
	case r.Error != nil && a.t.ErrorEvent:
		a.send("error", members{"code": r.Error.Code, "message": r.Error.Message, "param": nil})
	case a.t.Finish != "-" || r.Error != nil:
		a.send("response."+r.Status, members{"response": r})
	}
}
