// Package tooltest calls the registered tools of a plugin natively, so that a
// plugin's own tests need no Wasm: the same registration, the same checks of
// the arguments, the same encoding of results and failures. It measures no
// fuel and enforces no sandbox.
package tooltest

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
	"github.com/casemate/casemate/sdk/tool"
)

// Call is one call of a tool.
type Call struct {
	Tool      string
	Arguments string            // JSON object; "": {}
	Config    string            // JSON object; "": none
	Info      abi.CallInfo      // what Context.Call returns
	KV        map[string][]byte // state before the call; not changed
	Denied    []string          // ops that are not granted though the plugin wants them
	// HTTP answers the tool's requests. An error with one of abi.HTTP… as its
	// Reason is what the host says instead of sending; see Refuse. nil: no
	// server can be reached.
	HTTP func(r tool.Request) (tool.Response, error)
	// Tools answers the tool's calls of other tools. An error is their
	// failure. nil: there are none.
	Tools func(name, arguments string) (tool.Answer, error)
	Now   time.Time // what Context.Now returns; zero: the real time
}

// Result is how a call ended.
type Result struct {
	Output  json.RawMessage // nil when Fail is not nil, and for a tool.Reply without one
	Content []json.RawMessage
	IsError bool
	Fail    *Fail
	KV      map[string][]byte // state after the call: that before it, if it failed
	Logs    []string
	Emitted [][]byte
	Streams int // bodies that the tool left open; the host closes them
}

// Fail is the failure of a call.
type Fail struct {
	Code         abi.FailCode
	RetryAfterMS int64 // -1: not said
	Text         string
}

// Text returns the output as the model sees it: a string without its quotes,
// any other value as JSON, and the content where there is no output.
func (r Result) Text() string {
	if r.Output == nil && r.Content != nil {
		text, err := json.Marshal(r.Content)
		if err != nil { // it was read from JSON
			panic(err)
		}
		return string(text)
	}
	var s string
	if len(r.Output) > 0 && r.Output[0] == '"' && json.Unmarshal(r.Output, &s) == nil {
		return s
	}
	return string(r.Output)
}

// Describe returns the descriptor of the plugin, or what is wrong with its
// registrations.
func Describe() (abi.Descriptor, error) {
	if _, err := guest.Process().Describe(); err != nil {
		return abi.Descriptor{}, fmt.Errorf("tooltest: %w", err)
	}
	return guest.Process().Descriptor(), nil
}

// Run calls a tool. It returns an error when the call cannot be made: no tool
// is registered, or a field of c is not JSON. A call that failed is a Result.
func Run(c Call) (Result, error) {
	reg := guest.Process()
	if !reg.Serves(abi.ExportToolCall) {
		return Result{}, fmt.Errorf("tooltest: no tool is registered")
	}
	in := abi.ToolCall{V: abi.Version, Tool: c.Tool, Arguments: json.RawMessage(c.Arguments), Config: json.RawMessage(c.Config), Call: c.Info}
	if c.Arguments == "" {
		in.Arguments = json.RawMessage("{}")
	}
	input, err := json.Marshal(in)
	if err != nil {
		return Result{}, fmt.Errorf("tooltest: %w", err)
	}
	host := guest.Fake{In: input, KV: maps.Clone(c.KV), Granted: make(map[string]bool), Time: c.Now}
	if c.HTTP != nil {
		host.HTTP = c.answerHTTP
	}
	if c.Tools != nil {
		host.Tools = c.answerTool
	}
	for _, op := range reg.Descriptor().Capabilities {
		host.Granted[op] = true
	}
	for _, op := range c.Denied {
		delete(host.Granted, op)
	}
	reg.Enter(abi.ExportToolCall, &host) // its status says no more than host.Failed
	r, err := result(c, &host)
	r.Streams = host.Streams()
	return r, err
}

func result(c Call, host *guest.Fake) (Result, error) {
	r := Result{KV: host.KV, Emitted: host.Emitted}
	for _, l := range host.Lines {
		r.Logs = append(r.Logs, l.Text)
	}
	if f := host.Failed; f != nil {
		r.KV = c.KV
		r.Fail = &Fail{Code: f.Code, RetryAfterMS: f.RetryAfterMS, Text: f.Text}
		return r, nil
	}
	var out abi.ToolResult
	if err := json.Unmarshal(host.Out, &out); err != nil {
		return Result{}, fmt.Errorf("tooltest: output %q: %w", host.Out, err)
	}
	r.Output, r.Content, r.IsError = out.Output, out.Content, out.IsError
	return r, nil
}
