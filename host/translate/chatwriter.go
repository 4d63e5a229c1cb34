package translate

import (
	"encoding/json"

	"github.com/casemate/casemate/host/response"
)

// ChatWriter turns the answer of an upstream that speaks Responses into that of
// Chat Completions: chunks for a client that streams, one object for others. It
// is not safe for concurrent use.
type ChatWriter struct {
	reader *responsesReader
	head   chunkHead
	usage  bool // the client asked for the usage chunk
	begun  bool
	ended  bool
	told   map[int]bool // calls whose id and name were told
	part   int          // of the reasoning told last, as thoughts counts; -1: none
}

// chunkHead is what every chunk of an answer begins with.
type chunkHead struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
}

// chunk is a chat.completion.chunk as the host writes it.
type chunk struct {
	chunkHead
	Choices []chunkChoice `json:"choices"`
	Usage   any           `json:"usage,omitempty"` // noUsage before the last
}

// noUsage is the usage of the chunks before the last one.
var noUsage = json.RawMessage("null")

type chunkChoice struct {
	Index    int           `json:"index"`
	Delta    chunkDelta    `json:"delta"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
}

type chunkDelta struct {
	Role        string            `json:"role,omitempty"`
	Content     *string           `json:"content,omitempty"`
	Refusal     *string           `json:"refusal,omitempty"`
	Reasoning   string            `json:"reasoning_content,omitempty"`
	Annotations []json.RawMessage `json:"annotations,omitempty"`
	ToolCalls   []chunkCall       `json:"tool_calls,omitempty"`
}

// chunkCall is a piece of a call; its first one holds id, type and name.
type chunkCall struct {
	Index    int            `json:"index"`
	ID       string         `json:"id,omitempty"`
	Type     string         `json:"type,omitempty"`
	Function *chunkFunction `json:"function,omitempty"`
	Custom   *chunkCustom   `json:"custom,omitempty"`
}

type chunkFunction struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

type chunkCustom struct {
	Name  string `json:"name,omitempty"`
	Input string `json:"input"`
}

// NewChatWriter returns a writer of one answer. id, model and created, in
// seconds since 1970, are those of the completion; usage: a last chunk tells it,
// which the client asked for; key is NewResponsesReader's.
func NewChatWriter(id, model string, created int64, usage bool, key string) *ChatWriter {
	return &ChatWriter{
		reader: &responsesReader{gathered: gathered{key: key}, plain: true},
		head:   chunkHead{id, "chat.completion.chunk", created, model},
		usage:  usage, told: map[int]bool{}, part: -1,
	}
}

// Event reads the data of one event and returns the chunks that tell of it, the
// last ones with the event that ends the answer. The errors are Reader's.
func (w *ChatWriter) Event(data []byte) ([][]byte, error) {
	deltas, err := w.reader.Chunk(data)
	if err != nil {
		return nil, err
	}
	return w.tell(deltas), nil
}

// Body reads a whole answer. The errors are Reader's.
func (w *ChatWriter) Body(data []byte) error {
	_, err := w.reader.Body(data)
	return err
}

// Chunks returns what tells a client that streams of an answer that Body read.
func (w *ChatWriter) Chunks() [][]byte {
	out := w.reader.output()
	var deltas []response.Delta
	if out.Reasoning != "" {
		deltas = append(deltas, response.Delta{Kind: response.ReasoningDelta, Text: out.Reasoning})
	}
	for i, s := range out.Summary {
		deltas = append(deltas, response.Delta{Kind: response.SummaryDelta, Index: i, Text: s})
	}
	if out.Text != "" {
		d := response.Delta{Kind: response.TextDelta, Text: out.Text}
		if len(out.Logprobs) > 0 {
			d.Logprobs = marshal(out.Logprobs)
		}
		deltas = append(deltas, d)
	}
	for _, a := range out.Annotations {
		deltas = append(deltas, response.Delta{Kind: response.AnnotationDelta, Raw: a})
	}
	if out.Refusal != "" {
		deltas = append(deltas, response.Delta{Kind: response.RefusalDelta, Text: out.Refusal})
	}
	for i, c := range out.Calls {
		deltas = append(deltas, response.Delta{Kind: response.CallDelta, Index: i, CallID: c.ID, Name: c.Name, Text: c.Arguments})
		w.reader.calls[i].sent = max(1, len(c.Arguments))
	}
	return w.tell(deltas)
}

// Completion returns the chat.completion that the answer amounts to. The error
// wraps ErrCut.
func (w *ChatWriter) Completion() ([]byte, error) {
	out, err := w.reader.Output()
	if err != nil {
		return nil, err
	}
	return completion(out, w.customs(), w.head.ID, w.head.Model, w.head.Created), nil
}

// Usage returns the tokens counted so far.
func (w *ChatWriter) Usage() response.Usage { return w.reader.Usage() }

// customs says which calls are of custom tools, by place.
func (w *ChatWriter) customs() map[int]bool {
	custom := map[int]bool{}
	for _, o := range w.reader.items {
		if o.call != nil && o.custom {
			custom[o.call.place] = true
		}
	}
	return custom
}

// tell writes the chunks for deltas, and at the end of the answer the last ones.
func (w *ChatWriter) tell(deltas []response.Delta) [][]byte {
	finish := w.reader.out.Finish
	if w.ended || len(deltas) == 0 && finish == "" {
		return nil
	}
	var chunks [][]byte
	if !w.begun {
		w.begun = true
		empty := ""
		chunks = append(chunks, w.chunk(chunkChoice{Delta: chunkDelta{Role: "assistant", Content: &empty}}))
	}
	for _, d := range deltas {
		if c, ok := w.delta(d); ok {
			chunks = append(chunks, w.chunk(c))
		}
	}
	if finish == "" {
		return chunks
	}
	w.ended = true
	for _, c := range w.reader.calls {
		if c.begun && !c.plain && c.sent == 0 { // its arguments turned out to mean none
			chunks = append(chunks, w.chunk(chunkChoice{Delta: chunkDelta{ToolCalls: []chunkCall{
				{Index: c.place, Function: &chunkFunction{Arguments: c.arguments()}},
			}}}))
		}
	}
	chunks = append(chunks, w.chunk(chunkChoice{Finish: &finish}))
	if w.usage {
		chunks = append(chunks, marshal(chunk{w.head, []chunkChoice{}, usageObject(w.reader.Usage())}))
	}
	return chunks
}

func (w *ChatWriter) chunk(c chunkChoice) []byte {
	out := chunk{chunkHead: w.head, Choices: []chunkChoice{c}}
	if w.usage {
		out.Usage = noUsage
	}
	return marshal(out)
}

// delta is the choice of the chunk that tells of d; false: there is none.
func (w *ChatWriter) delta(d response.Delta) (chunkChoice, bool) {
	var c chunkChoice
	switch d.Kind {
	case response.TextDelta:
		c.Delta.Content = &d.Text
		var l []json.RawMessage
		if d.Logprobs != nil && json.Unmarshal(d.Logprobs, &l) == nil {
			c.Logprobs = &chatLogprobs{Content: l}
		}
	case response.RefusalDelta:
		c.Delta.Refusal = &d.Text
	case response.ReasoningDelta:
		c.Delta.Reasoning = w.thought(0, d.Text)
	case response.SummaryDelta:
		c.Delta.Reasoning = w.thought(d.Index+1, d.Text)
	case response.AnnotationDelta:
		n, ok := nested(d.Raw)
		c.Delta.Annotations = []json.RawMessage{n}
		return c, ok
	case response.CallDelta:
		c.Delta.ToolCalls = []chunkCall{w.call(d)}
	case response.EncryptedDelta:
		return c, false
	}
	return c, true
}

// thought puts a gap between the parts of what a model thought.
func (w *ChatWriter) thought(part int, s string) string {
	if w.part >= 0 && w.part != part {
		s = summaryGap + s
	}
	w.part = part
	return s
}

func (w *ChatWriter) call(d response.Delta) chunkCall {
	c := chunkCall{Index: d.Index}
	custom := w.reader.calls[d.Index].plain
	name := ""
	if !w.told[d.Index] {
		w.told[d.Index] = true
		c.ID, name, c.Type = d.CallID, d.Name, "function"
		if custom {
			c.Type = "custom"
		}
	}
	if custom {
		c.Custom = &chunkCustom{name, d.Text}
	} else {
		c.Function = &chunkFunction{name, d.Text}
	}
	return c
}
