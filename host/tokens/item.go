package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// item is what counts of an input or output item of the Responses API.
type item struct {
	Type      string          `json:"type"`
	Content   json.RawMessage `json:"content"` // a string or parts
	Summary   json.RawMessage `json:"summary"`
	Output    json.RawMessage `json:"output"`
	Error     json.RawMessage `json:"error"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Input     string          `json:"input"`
	Encrypted string          `json:"encrypted_content"`
}

// Item returns how many tokens an item of the Responses API is to its model,
// given as JSON. Items that no model is shown count for nothing, and so does
// what is no item.
func (c *Counter) Item(raw json.RawMessage) int {
	var it item
	if json.Unmarshal(raw, &it) != nil && it.Type == "" && it.Content == nil {
		return 0
	}
	switch it.Type {
	case "", "message":
		return PerMessage + c.content(it.Content)
	case "function_call":
		return PerMessage + c.Text(it.Name) + c.Text(it.Arguments)
	case "custom_tool_call":
		return PerMessage + c.Text(it.Name) + c.Text(it.Input)
	case "function_call_output", "custom_tool_call_output":
		return PerMessage + c.content(it.Output)
	case "mcp_call": // the call, and its output
		return 2*PerMessage + c.Text(it.Name) + c.Text(it.Arguments) + c.content(it.Output) + c.content(it.Error)
	case "reasoning":
		return PerMessage + c.content(it.Summary) + c.content(it.Content)
	case "compaction":
		return PerMessage + c.sealed(it.Encrypted)
	}
	return 0
}

// sealed counts the text that is in an encrypted_content of this host: what
// follows its version is the text in base64.
func (c *Counter) sealed(s string) int {
	_, text, _ := strings.Cut(s, ".")
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || !utf8.Valid(b) {
		return guess(s)
	}
	return c.Text(string(b))
}

// content counts a string, a list of parts, or any other value as its JSON.
func (c *Counter) content(raw json.RawMessage) int {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return 0
	}
	var s string
	if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return c.Text(s)
	}
	var parts []part
	if raw[0] != '[' || json.Unmarshal(raw, &parts) != nil {
		return c.Text(string(raw))
	}
	total := 0
	for _, p := range parts {
		total += c.part(p)
	}
	return total
}

// part is what counts of a content part.
type part struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Refusal  string          `json:"refusal"`
	ImageURL json.RawMessage `json:"image_url"` // a string; in Chat Completions an object
	Detail   string          `json:"detail"`
	FileData string          `json:"file_data"`
	Filename string          `json:"filename"`
	Audio    struct {
		Data   string `json:"data"`
		Format string `json:"format"`
	} `json:"input_audio"`
}

func (c *Counter) part(p part) int {
	switch p.Type {
	case "input_image", "image_url", "computer_screenshot":
		var url string
		_ = json.Unmarshal(p.ImageURL, &url) // another shape has a size that is not known
		return image(url, p.Detail)
	case "input_file":
		return c.Text(p.Filename) + c.file(p.FileData)
	case "input_audio":
		return audio(p.Audio.Data, p.Audio.Format)
	}
	return c.Text(p.Text) + c.Text(p.Refusal)
}

// Tool returns how many tokens the definition of a tool is, given as JSON:
// those of its name, its description and its schema as they are written.
func (c *Counter) Tool(raw json.RawMessage) int {
	var t struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Schema      json.RawMessage `json:"input_schema"`
		Format      json.RawMessage `json:"format"` // of a custom tool
		Function    json.RawMessage `json:"function"`
	}
	if json.Unmarshal(raw, &t) != nil {
		return 0
	}
	if len(t.Function) > 0 && t.Name == "" {
		return c.Tool(t.Function)
	}
	if t.Name == "" {
		return 0
	}
	return PerTool + c.Text(t.Name) + c.Text(t.Description) + c.Schema(t.Parameters) + c.Schema(t.Schema) + c.Schema(t.Format)
}

// Schema returns how many tokens a JSON value is that the model is shown as it
// is, such as the schema of its answer.
func (c *Counter) Schema(raw json.RawMessage) int {
	var b bytes.Buffer
	if len(raw) == 0 || string(raw) == "null" || json.Compact(&b, raw) != nil {
		return 0
	}
	return c.Text(b.String())
}
