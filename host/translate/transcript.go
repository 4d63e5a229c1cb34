package translate

import (
	"strings"

	"github.com/casemate/casemate/host/response"
)

// transcript is the writer of a chat's messages. Tool calls that follow each
// other become one assistant message with the results right after it, whatever
// came between call and result.
type transcript struct {
	messages []chatMessage
	calls    []chatCall
	results  []chatMessage
	shown    []chatPart // of results: images and files, which a tool's message cannot hold
}

// done returns the messages.
func (t *transcript) done() []chatMessage {
	t.flush()
	if t.messages == nil {
		return []chatMessage{}
	}
	return t.messages
}

func (t *transcript) say(m chatMessage) {
	t.flush()
	t.messages = append(t.messages, m)
}

// flush ends a run of calls. They join the assistant message before them.
func (t *transcript) flush() {
	if len(t.calls) == 0 {
		return
	}
	n := len(t.messages)
	if n > 0 && t.messages[n-1].Role == "assistant" && t.messages[n-1].ToolCalls == nil {
		t.messages[n-1].ToolCalls = t.calls
	} else {
		t.messages = append(t.messages, chatMessage{Role: "assistant", ToolCalls: t.calls})
	}
	t.messages = append(t.messages, t.results...)
	if len(t.shown) > 0 {
		t.messages = append(t.messages, chatMessage{Role: "user", Content: &chatContent{Parts: t.shown}})
	}
	t.calls, t.results, t.shown = nil, nil, nil
}

// apart splits the result of a call into what a tool's message can hold, which
// is text, and the rest, for a message of its own behind all results.
func apart(id string, result *chatContent) (*chatContent, []chatPart) {
	var said strings.Builder
	var rest []chatPart
	for _, p := range result.Parts {
		if p.Text != nil {
			said.WriteString(*p.Text)
			continue
		}
		rest = append(rest, p)
	}
	if len(rest) == 0 {
		return result, nil
	}
	if said.Len() == 0 {
		said.WriteString("The output is in the next message of the user.")
	}
	head := "The output of the tool call " + id + ":"
	return &chatContent{Text: said.String()}, append([]chatPart{{Type: "text", Text: &head}}, rest...)
}

func (t *transcript) call(id, name, arguments string, result *chatContent) {
	t.calls = append(t.calls, functionCall(id, response.SafeName(name), objectText(arguments)))
	t.results = append(t.results, chatMessage{Role: "tool", Content: result, ToolCallID: id})
}

func (t *transcript) message(param string, m item) error {
	role := m.Role
	content, err := toChat(param+".content", m.Content)
	switch role {
	case "developer":
		role = "system" // the name that every upstream knows
	case "assistant":
		content, err = &chatContent{Text: plainText(m.Content)}, nil
	}
	if err != nil {
		return err
	}
	t.say(chatMessage{Role: role, Content: content, Name: text(m.Name)})
	return nil
}

// reasoning: Chat Completions has no words for it.
func (t *transcript) reasoning(item) {}

func (t *transcript) called(param string, m, output item) error {
	result, err := toChat(param+".output", output.Output)
	if err != nil {
		return err
	}
	arguments := argumentsText(m.Arguments)
	if m.Type == "custom_tool_call" {
		arguments = string(marshal(customInput{text(m.Input)}))
	}
	result, shown := apart(m.CallID, result)
	t.shown = append(t.shown, shown...)
	t.call(m.CallID, text(m.Name), arguments, result)
	return nil
}

// answer ends a run of calls: the output was added with its call.
func (t *transcript) answer(string, item) error {
	t.flush()
	return nil
}

func (t *transcript) server(id, name, arguments, result string) {
	t.call(id, name, arguments, &chatContent{Text: result})
}

func (t *transcript) turn(out response.ModelOutput, results map[string]string) {
	t.flush()
	if said := out.Text + out.Refusal; said != "" {
		t.say(chatMessage{Role: "assistant", Content: &chatContent{Text: said}})
	}
	for _, c := range out.Calls {
		if r, ok := results[c.ID]; ok {
			t.call(c.ID, c.Name, c.Arguments, &chatContent{Text: r})
		}
	}
	t.flush()
}
