package translate

import "github.com/casemate/casemate/host/response"

// transcript is the writer of a chat's messages. Tool calls that follow each
// other become one assistant message with the results right after it, whatever
// came between call and result.
type transcript struct {
	messages []chatMessage
	calls    []chatCall
	results  []chatMessage
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
	t.calls, t.results = nil, nil
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
