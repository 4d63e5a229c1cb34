package response

import (
	"encoding/json"
	"strings"
)

// FunctionTool is a function of the client: the host never runs it.
type FunctionTool struct {
	Name string          `json:"name"`
	Raw  json.RawMessage `json:"raw"` // as Chat Completions wants it: name, description, parameters, …
	// Custom: a tool whose input is a text. As a function it has one argument,
	// input; Format is what the client says of the text, nil: nothing.
	Custom bool            `json:"custom,omitempty"`
	Format json.RawMessage `json:"format,omitempty"`
}

// ServerRef is a {"type":"mcp"} entry: tools of this host, or with a URL those
// of another server.
type ServerRef struct {
	Label       string    `json:"server_label"`
	Allowed     []string  `json:"allowed_tools"` // bare names; nil: all
	URL         string    `json:"server_url,omitempty"`
	Description string    `json:"server_description,omitempty"`
	Approval    *Approval `json:"approval,omitempty"` // nil: not said
	// Credentials are not encoded: what is kept of a request does not hold them.
	Credentials Credentials `json:"-"`
}

// legalName reports whether s matches ^[a-zA-Z0-9_-]{1,64}$.
func legalName(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, nameChars) == "" && s == safeName(s)
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// safeName makes s a legal name: strict upstreams refuse a transcript that
// holds a name that a model made up.
func safeName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !strings.ContainsRune(nameChars, rune(c)) {
			b[i] = '_'
		}
	}
	switch {
	case len(b) == 0:
		return "unnamed"
	case len(b) > 64:
		b = b[:64]
	}
	return string(b)
}
