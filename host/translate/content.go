package translate

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Unsupported is what the other API has no words for: the client's to change,
// or for another upstream to serve.
type Unsupported struct {
	Param   string // "messages[2].content[0]", in the client's words
	Code    string // "unsupported_parameter", "unsupported_value", "invalid_type", …
	Message string // for the client: holds nothing of what it sent but names of fields
}

// The codes of an Unsupported.
const (
	codeParameter = "unsupported_parameter"
	codeValue     = "unsupported_value"
	codeType      = "invalid_type"
	codeMissing   = "missing_required_parameter"
)

func (e *Unsupported) Error() string { return "translate: " + e.Param + ": " + e.Message }

// part is a content part of an item as it is read, of either API.
type part struct {
	Type     string          `json:"type"`
	Text     json.RawMessage `json:"text"`
	Refusal  json.RawMessage `json:"refusal"`
	ImageURL json.RawMessage `json:"image_url"`
	Detail   json.RawMessage `json:"detail"`
	FileID   json.RawMessage `json:"file_id"`
	FileData json.RawMessage `json:"file_data"`
	FileURL  json.RawMessage `json:"file_url"`
	Filename json.RawMessage `json:"filename"`
	Audio    json.RawMessage `json:"input_audio"`
}

// chat says the part in Chat Completions; false if it cannot be said there.
func (p part) chat() (chatPart, bool) {
	switch p.Type {
	case "input_text", "output_text", "text", "summary_text", "reasoning_text":
		return textPart(p.Text)
	case "refusal":
		return textPart(p.Refusal)
	case "input_image":
		url := text(p.ImageURL)
		return chatPart{Type: "image_url", ImageURL: marshal(chatImage{URL: url, Detail: text(p.Detail)})}, url != ""
	case "image_url":
		return chatPart{Type: "image_url", ImageURL: p.ImageURL}, !isNull(p.ImageURL)
	case "input_file":
		data := text(p.FileData)
		return chatPart{Type: "file", File: &chatFile{FileData: data, Filename: text(p.Filename)}}, data != ""
	case "input_audio":
		return chatPart{Type: "input_audio", Audio: p.Audio}, !isNull(p.Audio)
	}
	return chatPart{}, false
}

func textPart(raw json.RawMessage) (chatPart, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return chatPart{}, false
	}
	s := text(raw)
	return chatPart{Type: "text", Text: &s}, true
}

// readParts reads a list of content parts; false: it is none. A member of an
// odd type leaves its part without a type.
func readParts(raw json.RawMessage) ([]part, bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	parts := make([]part, len(list))
	for i, r := range list {
		if json.Unmarshal(r, &parts[i]) != nil {
			parts[i] = part{}
		}
	}
	return parts, true
}

// toChat translates an item's content: a string stays one, a list of one text
// becomes a string, other lists become chat parts. param names the content in
// the *Unsupported of a part that a chat upstream cannot take.
func toChat(param string, raw json.RawMessage) (*chatContent, error) {
	if isNull(raw) {
		return &chatContent{}, nil
	}
	if raw[0] == '"' {
		return &chatContent{Text: text(raw)}, nil
	}
	list, ok := readParts(raw)
	if !ok {
		return &chatContent{Text: string(raw)}, nil
	}
	parts := make([]chatPart, 0, len(list))
	for i, p := range list {
		said, ok := p.chat()
		if !ok {
			return nil, &Unsupported{
				fmt.Sprintf("%s[%d]", param, i), codeValue,
				"The upstream of this model takes no such part: use input_text, input_image with image_url, input_file with file_data or input_audio.",
			}
		}
		parts = append(parts, said)
	}
	switch {
	case len(parts) == 0:
		return &chatContent{}, nil
	case len(parts) == 1 && parts[0].Text != nil:
		return &chatContent{Text: *parts[0].Text}, nil
	}
	return &chatContent{Parts: parts}, nil
}

// plainText joins the texts of an item's content.
func plainText(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		return text(raw)
	}
	list, _ := readParts(raw)
	var b strings.Builder
	for _, p := range list {
		if said, ok := p.chat(); ok && said.Text != nil {
			b.WriteString(*said.Text)
		}
	}
	return b.String()
}
