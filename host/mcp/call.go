package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/sdk/abi"
)

// Call implements loop.Remotes. A server that forgot the session before it took
// the call is asked once more, in a new one: it did nothing yet.
func (c *Client) Call(ctx context.Context, s loop.RemoteServer, call loop.ToolCall) loop.ToolResult {
	began := time.Now()
	within := c.options.CallTime
	if call.Tool.Timeout > 0 {
		within = min(within, call.Tool.Timeout)
	}
	asking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var out loop.ToolResult
	for try := 0; ; try++ {
		answer, err := c.callOnce(asking, s, call)
		if errors.Is(err, errLost) && try == 0 {
			continue
		}
		if err != nil {
			out = failed(ctx, err)
		} else {
			out = c.result(answer)
		}
		break
	}
	out.RetryAfter = -1
	out.Used = response.Used{WallMS: time.Since(began).Milliseconds(), Output: len(out.Output), HostCalls: 1}
	return out
}

// errEffect: the run may not begin anything any more.
var errEffect = errors.New("mcp: the call may not begin")

// callOnce calls a tool in a session of its own.
func (c *Client) callOnce(ctx context.Context, s loop.RemoteServer, call loop.ToolCall) (*sdk.CallToolResult, error) {
	x, err := c.open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if call.Effect(ctx) != nil {
		return nil, errEffect
	}
	res, err := x.CallTool(ctx, &sdk.CallToolParams{Name: call.Tool.Tool, Arguments: json.RawMessage(call.Arguments)})
	if err != nil {
		return nil, x.explain(err)
	}
	return res, nil
}

// classes are how a call ended that a server did not answer as it should.
var classes = map[string]queue.Class{
	codeDenied:       queue.GuestDenied,
	codeUnreachable:  queue.UpstreamNetwork,
	codeUnauthorized: queue.GuestError, // asking again would end the same
	codeInvalid:      queue.UpstreamInvalid,
	codeTimeout:      queue.GuestDeadline,
}

// maxSaid is how much of a server's refusal the model is told, in bytes.
const maxSaid = 2 << 10

// failed is the result of a call without an answer. ctx is the caller's.
func failed(ctx context.Context, err error) loop.ToolResult {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return lost(queue.GuestDeadline, codeTimeout, late)
		}
		return lost(queue.ClassCanceled, string(queue.ClassCanceled), "The call was canceled.")
	}
	if errors.Is(err, errEffect) {
		return lost(queue.ClassCanceled, string(queue.ClassCanceled), "The call was canceled.")
	}
	if e, ok := errors.AsType[*loop.RemoteError](err); ok {
		return lost(classes[e.Code], e.Code, e.Message)
	}
	if e, ok := errors.AsType[*jsonrpc.Error](err); ok {
		code := abi.FailPermanent
		if e.Code == jsonrpc.CodeInvalidParams {
			code = abi.FailInvalidArgs
		}
		said := e.Message
		if len(said) > maxSaid {
			said = said[:maxSaid]
		}
		return lost(queue.GuestError, code.String(), strings.ToValidUTF8(said, ""))
	}
	return lost(queue.UpstreamInvalid, codeInvalid, invalid)
}

func lost(class queue.Class, code, message string) loop.ToolResult {
	return loop.ToolResult{Class: class, Code: code, Output: string(response.ErrorOutput(code, message))}
}

// result reads what a tool answered.
func (c *Client) result(r *sdk.CallToolResult) loop.ToolResult {
	if r.NeedsInput() {
		return lost(queue.GuestError, "input_required", "The tool asks for input that it is not given here.")
	}
	text := textOf(r)
	if len(text) > c.options.MaxOutput {
		return lost(queue.GuestOutput, "output_too_large", "The tool's output is too large.")
	}
	switch {
	case r.IsError && text == "":
		return lost(queue.GuestError, abi.FailPermanent.String(), "The tool failed.")
	case r.IsError:
		return loop.ToolResult{Class: queue.GuestError, Code: abi.FailPermanent.String(), Output: text}
	}
	return loop.ToolResult{Class: queue.OK, Output: text}
}

// textOf is what the model is given of a result: the texts, or without any the
// structured content, and what else there is as JSON that tells of it.
func textOf(r *sdk.CallToolResult) string {
	var parts []string
	texts := false
	for _, c := range r.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			texts = true
			parts = append(parts, t.Text)
			continue
		}
		if p := describe(c); p != nil {
			raw, err := json.Marshal(p)
			if err == nil {
				parts = append(parts, string(raw))
			}
		}
	}
	if !texts && r.StructuredContent != nil {
		raw, err := json.Marshal(r.StructuredContent)
		if err == nil {
			parts = append([]string{string(raw)}, parts...)
		}
	}
	return strings.ToValidUTF8(strings.Join(parts, "\n"), "\uFFFD")
}

// part tells of content that is no text.
type part struct {
	Type  string `json:"type"`
	MIME  string `json:"mime_type,omitempty"`
	URI   string `json:"uri,omitempty"`
	Name  string `json:"name,omitempty"`
	Text  string `json:"text,omitempty"`
	Bytes int    `json:"bytes,omitempty"` // of the data, which is left out
}

func describe(c sdk.Content) *part {
	switch c := c.(type) {
	case *sdk.ImageContent:
		return &part{Type: "image", MIME: c.MIMEType, Bytes: len(c.Data)}
	case *sdk.AudioContent:
		return &part{Type: "audio", MIME: c.MIMEType, Bytes: len(c.Data)}
	case *sdk.ResourceLink:
		return &part{Type: "resource_link", MIME: c.MIMEType, URI: c.URI, Name: c.Name}
	case *sdk.EmbeddedResource:
		if c.Resource == nil {
			return nil
		}
		return &part{
			Type: "resource", MIME: c.Resource.MIMEType, URI: c.Resource.URI, Text: c.Resource.Text, Bytes: len(c.Resource.Blob),
		}
	}
	return nil
}
