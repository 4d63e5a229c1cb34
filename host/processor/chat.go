package processor

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/object"
)

// isChat reports whether a path answers with a chat completion.
func isChat(path string) bool { return strings.HasSuffix(path, "/chat/completions") }

// isText reports whether a path answers with a legacy text completion.
func isText(path string) bool {
	return strings.HasSuffix(path, "/completions") && !isChat(path)
}

// withUsage asks for the usage chunk of a stream, which the host needs to meter
// it; wanted says that the client asked for it itself. All other bytes stay. body
// is valid JSON; what is no object goes as it is: the upstream will say what is
// wrong with it.
func withUsage(body []byte) (out []byte, wanted bool) {
	const member = `"include_usage":true`
	if !object.Begins(body) {
		return body, true
	}
	at, ok := object.Find(body, "stream_options")
	options := body[at.Start:at.End]
	switch {
	case !ok:
		return insert(body, bytes.IndexByte(body, '{')+1, `"stream_options":{`+member+`}`), false
	case string(options) == "null":
		return splice(body, at.Start, at.End, "{"+member+"}"), false
	case options[0] != '{':
		return body, true
	}
	in, ok := object.Find(options, "include_usage")
	switch {
	case !ok:
		return insert(body, at.Start+1, member), false
	case string(options[in.Start:in.End]) == "true":
		return body, true
	}
	return splice(body, at.Start+in.Start, at.Start+in.End, "true"), false
}

// splice returns b with text in place of b[start:end].
func splice(b []byte, start, end int, text string) []byte {
	out := make([]byte, 0, len(b)+len(text))
	return append(append(append(out, b[:start]...), text...), b[end:]...)
}

// insert returns an object with a member put at the index past its brace.
func insert(b []byte, at int, member string) []byte {
	if rest := bytes.TrimLeft(b[at:], " \t\r\n"); rest[0] != '}' {
		member += ","
	}
	return splice(b, at, at, member)
}

// asChunks turns a whole chat completion into the chunk of a stream, for a client
// that asked for a stream when the upstream does not stream; usage: and into the
// one that tells the usage, which the client asked for.
func asChunks(body []byte, usage bool) [][]byte {
	var whole map[string]json.RawMessage
	var choices []map[string]json.RawMessage
	if json.Unmarshal(body, &whole) != nil || json.Unmarshal(whole["choices"], &choices) != nil {
		return [][]byte{body}
	}
	for _, c := range choices {
		if c == nil {
			continue
		}
		c["delta"] = asDelta(c["message"])
		delete(c, "message")
	}
	whole["object"] = json.RawMessage(`"chat.completion.chunk"`)
	told := whole["usage"]
	delete(whole, "usage")
	chunks := [][]byte{chunkOf(whole, choices)}
	if usage && len(told) > 0 {
		whole["usage"] = told
		chunks = append(chunks, chunkOf(whole, []map[string]json.RawMessage{}))
	}
	return chunks
}

func chunkOf(whole map[string]json.RawMessage, choices []map[string]json.RawMessage) []byte {
	whole["choices"], _ = json.Marshal(choices) // of raw messages that were just read
	chunk, _ := json.Marshal(whole)
	return chunk
}

// asDelta turns a message into a delta, whose calls say which they are.
func asDelta(message json.RawMessage) json.RawMessage {
	var m map[string]json.RawMessage
	var calls []map[string]json.RawMessage
	if json.Unmarshal(message, &m) != nil || json.Unmarshal(m["tool_calls"], &calls) != nil {
		return message
	}
	for i, c := range calls {
		if c != nil && c["index"] == nil {
			c["index"] = json.RawMessage(strconv.Itoa(i))
		}
	}
	m["tool_calls"], _ = json.Marshal(calls)
	delta, _ := json.Marshal(m)
	return delta
}
