// Command notes is a tool plugin that keeps short notes for its tenant. Its
// only effect is on the plugin's own state; it asks for no other power.
package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("notes", "0.1.0", "Keeps short notes from one conversation to the next.")
	tool.Want(abi.OpKVGet, abi.OpKVPut)
	tool.Register(tool.Tool{
		Name:        "notes",
		Description: "Keeps short notes: op add appends a text, op list returns all texts, oldest first.",
		// A note carries the key of its step, so a repeat finds it and adds nothing.
		Effects: tool.Idempotent,
	}, run)
	tool.WarmUp("notes", args{Op: "add", Text: "text"})
}

func main() {}

// maxText is the longest note, in bytes.
const maxText = 2000

// notebook is the kv key of all notes of a tenant.
const notebook = "notes"

type args struct {
	Op   string `json:"op" jsonschema:"what to do" enum:"add,list"`
	Text string `json:"text,omitempty" jsonschema:"the note, for op add"`
}

// note is one entry of the notebook.
type note struct {
	Key  string `json:"key,omitempty"` // idempotency key of the step that added it
	Text string `json:"text"`
}

type added struct {
	Count int `json:"count"` // notes kept now
}

type listed struct {
	Notes []string `json:"notes"`
}

func run(ctx tool.Context, a args) (any, error) {
	notes, err := load(ctx)
	if err != nil {
		return nil, err
	}
	if a.Op == "list" {
		texts := make([]string, len(notes))
		for i, n := range notes {
			texts[i] = n.Text
		}
		return listed{Notes: texts}, nil
	}
	return add(ctx, notes, a.Text)
}

func add(ctx tool.Context, notes []note, text string) (any, error) {
	switch {
	case text == "":
		return nil, tool.InvalidArgs("text: missing; op add wants the note in it")
	case len(text) > maxText:
		return nil, tool.InvalidArgs("text: %d bytes, at most %d are kept", len(text), maxText)
	}
	key := ctx.Call().IdempotencyKey
	known := func(n note) bool { return key != "" && n.Key == key }
	if slices.ContainsFunc(notes, known) {
		return added{Count: len(notes)}, nil
	}
	notes = append(notes, note{Key: key, Text: text})
	value, err := json.Marshal(notes)
	if err != nil {
		return nil, fmt.Errorf("notebook: %w", err)
	}
	if len(value) > abi.MaxKVValue {
		return nil, tool.Permanent("the notebook is full: it has %d notes", len(notes)-1)
	}
	if err := ctx.KV().Put(notebook, value); err != nil {
		return nil, fmt.Errorf("notebook: %w", err)
	}
	return added{Count: len(notes)}, nil
}

func load(ctx tool.Context) ([]note, error) {
	value, ok, err := ctx.KV().Get(notebook)
	if err != nil {
		return nil, fmt.Errorf("notebook: %w", err)
	}
	var notes []note
	if !ok {
		return notes, nil
	}
	if err := json.Unmarshal(value, &notes); err != nil {
		return nil, fmt.Errorf("notebook: %w", err)
	}
	return notes, nil
}
