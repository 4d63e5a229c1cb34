package processor

import (
	"bytes"
	"encoding/json"
	"strings"
)

// isChat reports whether a path answers with a chat completion.
func isChat(path string) bool { return strings.HasSuffix(path, "/chat/completions") }

// withUsage asks for the usage chunk of a stream, which the host needs to meter
// it; wanted says that the client asked for it itself. A body that cannot be
// read goes as it is: the upstream will say what is wrong with it.
func withUsage(body []byte) (out []byte, wanted bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return body, true
	}
	options := map[string]json.RawMessage{}
	if raw, ok := fields["stream_options"]; ok && string(raw) != "null" {
		if json.Unmarshal(raw, &options) != nil {
			return body, true
		}
	}
	if string(options["include_usage"]) == "true" {
		return body, true
	}
	options["include_usage"] = json.RawMessage("true")
	fields["stream_options"], _ = json.Marshal(options) // of raw messages that were just read
	out, err := json.Marshal(fields)
	if err != nil {
		return body, true
	}
	return out, false
}

// isUsageChunk reports whether a chunk holds nothing but the usage.
func isUsageChunk(data []byte) bool {
	if !bytes.Contains(data, []byte(`"usage"`)) {
		return false
	}
	var chunk struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   json.RawMessage   `json:"usage"`
	}
	return json.Unmarshal(data, &chunk) == nil && len(chunk.Choices) == 0 &&
		len(chunk.Usage) > 0 && string(chunk.Usage) != "null"
}

// asChunk turns a whole chat completion into the one chunk of a stream, for a
// client that asked for a stream when the upstream does not stream.
func asChunk(body []byte) []byte {
	var whole map[string]json.RawMessage
	var choices []map[string]json.RawMessage
	if json.Unmarshal(body, &whole) != nil || json.Unmarshal(whole["choices"], &choices) != nil {
		return body
	}
	for _, c := range choices {
		c["delta"] = c["message"]
		delete(c, "message")
	}
	whole["object"] = json.RawMessage(`"chat.completion.chunk"`)
	whole["choices"], _ = json.Marshal(choices) // of raw messages that were just read
	chunk, err := json.Marshal(whole)
	if err != nil {
		return body
	}
	return chunk
}
