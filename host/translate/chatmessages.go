package translate

import (
	"encoding/json"
	"fmt"
)

// askedMessage is a message of a client's chat completion as it is read.
type askedMessage struct {
	Role         string          `json:"role"`
	Content      json.RawMessage `json:"content"`
	Name         string          `json:"name"`
	Refusal      string          `json:"refusal"`
	ToolCalls    []askedCall     `json:"tool_calls"`
	ToolCallID   string          `json:"tool_call_id"`
	FunctionCall json.RawMessage `json:"function_call"`
	Audio        json.RawMessage `json:"audio"`
}

type askedCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"function"`
	Custom *chatCustom `json:"custom"`
}

// asked gathers the items that messages amount to.
type asked struct {
	items  []responsesItem
	custom map[string]bool // ids of calls of custom tools: their outputs differ
}

// asItems translates messages. The error is an *Unsupported.
func asItems(messages []json.RawMessage) ([]responsesItem, error) {
	a := asked{items: []responsesItem{}, custom: map[string]bool{}}
	for i, raw := range messages {
		param := fmt.Sprintf("messages[%d]", i)
		var m askedMessage
		if err := readTyped(param, raw, &m); err != nil {
			return nil, err
		}
		if err := a.message(param, m); err != nil {
			return nil, err
		}
	}
	return a.items, nil
}

func (a *asked) message(param string, m askedMessage) error {
	if m.Name != "" && m.Role != "tool" { // a tool's is one of its call
		return unsupported(param + ".name")
	}
	switch m.Role {
	case "system", "developer", "user":
		content, err := inputContent(param+".content", m.Content)
		if err == nil {
			a.items = append(a.items, responsesItem{Type: "message", Role: m.Role, Content: content})
		}
		return err
	case "assistant":
		return a.assistant(param, m)
	case "tool":
		output, err := inputContent(param+".content", m.Content)
		kind := "function_call_output"
		if a.custom[m.ToolCallID] {
			kind = "custom_tool_call_output"
		}
		if err == nil && m.ToolCallID == "" {
			err = &Unsupported{param + ".tool_call_id", codeMissing, "A tool's message needs tool_call_id."}
		}
		if err == nil {
			a.items = append(a.items, responsesItem{Type: kind, CallID: m.ToolCallID, Output: output})
		}
		return err
	}
	return &Unsupported{param + ".role", codeValue, "role must be system, developer, user, assistant or tool."}
}

// assistant adds what a model said before, and its calls after that.
func (a *asked) assistant(param string, m askedMessage) error {
	switch {
	case !isNull(m.Audio):
		return unsupported(param + ".audio")
	case !isNull(m.FunctionCall):
		return unsupported(param + ".function_call")
	}
	parts, err := outputParts(param+".content", m.Content)
	if err != nil {
		return err
	}
	if m.Refusal != "" {
		parts = append(parts, responsesPart{Type: "refusal", Refusal: &m.Refusal})
	}
	if len(parts) > 0 || len(m.ToolCalls) == 0 {
		content := json.RawMessage(`""`)
		if len(parts) > 0 {
			content = marshal(parts)
		}
		a.items = append(a.items, responsesItem{Type: "message", Role: "assistant", Content: content})
	}
	for i, c := range m.ToolCalls {
		at := fmt.Sprintf("%s.tool_calls[%d]", param, i)
		switch {
		case c.ID == "":
			return &Unsupported{at + ".id", codeMissing, "A tool call needs its id."}
		case c.Type == "custom" && c.Custom != nil:
			a.custom[c.ID] = true
			a.items = append(a.items, responsesItem{Type: "custom_tool_call", CallID: c.ID, Name: c.Custom.Name, Input: &c.Custom.Input})
		case c.Type == "function" || c.Type == "":
			arguments := argumentsText(c.Function.Arguments)
			a.items = append(a.items, responsesItem{Type: "function_call", CallID: c.ID, Name: c.Function.Name, Arguments: &arguments})
		default:
			return &Unsupported{at + ".type", codeValue, "A tool call's type must be function or custom."}
		}
	}
	return nil
}

// askedPart is a content part of a client's message as it is read.
type askedPart struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Refusal  string          `json:"refusal"`
	ImageURL json.RawMessage `json:"image_url"`
	File     struct {
		FileData string `json:"file_data"`
		FileID   string `json:"file_id"`
		Filename string `json:"filename"`
	} `json:"file"`
}

// inputContent translates content that is no model's: a string stays one.
func inputContent(param string, raw json.RawMessage) (json.RawMessage, error) {
	if isNull(raw) {
		return json.RawMessage(`""`), nil
	}
	if raw[0] == '"' {
		return raw, nil
	}
	list, err := askedParts(param, raw)
	if err != nil {
		return nil, err
	}
	parts := make([]responsesPart, 0, len(list))
	for i, p := range list {
		switch p.Type {
		case "text":
			parts = append(parts, responsesPart{Type: "input_text", Text: &p.Text})
		case "image_url":
			var image chatImage
			if err := readTyped(fmt.Sprintf("%s[%d].image_url", param, i), p.ImageURL, &image); err != nil {
				return nil, err
			}
			parts = append(parts, responsesPart{Type: "input_image", ImageURL: image.URL, Detail: image.Detail})
		case "file":
			parts = append(parts, responsesPart{Type: "input_file", FileData: p.File.FileData, FileID: p.File.FileID, Filename: p.File.Filename})
		default:
			return nil, &Unsupported{
				fmt.Sprintf("%s[%d]", param, i), codeValue,
				"The upstream of this model takes parts of type text, image_url and file.",
			}
		}
	}
	return marshal(parts), nil
}

// outputParts translates content that is a model's.
func outputParts(param string, raw json.RawMessage) ([]responsesPart, error) {
	if isNull(raw) {
		return nil, nil
	}
	none := []json.RawMessage{}
	if raw[0] == '"' {
		s := text(raw)
		if s == "" {
			return nil, nil
		}
		return []responsesPart{{Type: "output_text", Text: &s, Annotations: none}}, nil
	}
	list, err := askedParts(param, raw)
	if err != nil {
		return nil, err
	}
	parts := make([]responsesPart, 0, len(list))
	for i, p := range list {
		switch p.Type {
		case "text":
			parts = append(parts, responsesPart{Type: "output_text", Text: &p.Text, Annotations: none})
		case "refusal":
			parts = append(parts, responsesPart{Type: "refusal", Refusal: &p.Refusal})
		default:
			return nil, &Unsupported{fmt.Sprintf("%s[%d]", param, i), codeValue, "An assistant's message may have parts of type text and refusal."}
		}
	}
	return parts, nil
}

func askedParts(param string, raw json.RawMessage) ([]askedPart, error) {
	var list []json.RawMessage
	if err := readTyped(param, raw, &list); err != nil {
		return nil, err
	}
	parts := make([]askedPart, len(list))
	for i, r := range list {
		if err := readTyped(fmt.Sprintf("%s[%d]", param, i), r, &parts[i]); err != nil {
			return nil, err
		}
	}
	return parts, nil
}
