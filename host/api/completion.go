package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/casemate/casemate/host/object"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/stream"
)

// completion serves POST /v1/chat/completions.
func (a *API) completion(x *exchange) error { return a.forward(x, pathCompletions) }

// textCompletion serves POST /v1/completions.
func (a *API) textCompletion(x *exchange) error { return a.forward(x, pathTexts) }

// embedding serves POST /v1/embeddings.
func (a *API) embedding(x *exchange) error { return a.forward(x, pathEmbeddings) }

// forward serves a path whose body goes to the upstream as it came.
func (a *API) forward(x *exchange, path string) error {
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	asked, err := parseForward(body)
	if err != nil {
		return err
	}
	if err := x.mayUse(asked.model); err != nil {
		return err
	}
	n := queue.New{
		ID: queue.NewID(), Tenant: x.tenant.Name, Model: asked.model, Path: path, Tier: "default",
		Stream: asked.stream && path != pathEmbeddings, DeadlineIn: limited(a.Deadline), Body: body,
	}
	x.response = n.ID
	if n.Stream {
		return a.relay(x, n)
	}
	run, bare, err := a.begin(x, n)
	switch {
	case err != nil:
		return err
	case bare:
		return a.answer(x, n, run)
	}
	return a.wait(x, n, run)
}

// forwarded is what the host looks at in a body that it forwards.
type forwarded struct {
	model  string
	stream bool
}

// parseForward reads a body that is one JSON value. What the upstream alone
// understands is not looked at, but for characters that no id, name or
// metadata may hold.
func parseForward(body []byte) (forwarded, error) {
	var f forwarded
	if !object.Begins(body) {
		return f, &response.BadRequest{Code: "invalid_type", Message: "The body must be an object."}
	}
	model, streamed := object.Value(body, "model"), object.Value(body, "stream")
	switch err := json.Unmarshal(model, &f.model); {
	case isNull(model):
		return f, &response.BadRequest{Param: "model", Code: "missing_required_parameter", Message: "model is required."}
	case err != nil:
		return f, &response.BadRequest{Param: "model", Code: "invalid_type", Message: "model must be a string."}
	case f.model == "":
		return f, &response.BadRequest{Param: "model", Code: "missing_required_parameter", Message: "model is required."}
	}
	if !isNull(streamed) && json.Unmarshal(streamed, &f.stream) != nil {
		return f, &response.BadRequest{Param: "stream", Code: "invalid_type", Message: "stream must be a boolean."}
	}
	if param := holdsNUL(f.model, body); param != "" {
		return f, &response.BadRequest{Param: param, Code: "invalid_value", Message: param + " must not hold the character U+0000."}
	}
	return f, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// holdsNUL returns the parameter whose id, name or metadata holds U+0000. In
// texts that character is legal, but rare: most bodies need no closer look.
func holdsNUL(model string, body []byte) string {
	var m map[string]json.RawMessage
	if !bytes.Contains(body, []byte(`\u0000`)) || json.Unmarshal(body, &m) != nil {
		return ""
	}
	bad := func(v any) bool {
		s, ok := v.(string)
		return ok && strings.ContainsRune(s, 0)
	}
	if bad(model) {
		return "model"
	}
	var user any
	if json.Unmarshal(m["user"], &user) == nil && bad(user) {
		return "user"
	}
	var metadata map[string]any
	if json.Unmarshal(m["metadata"], &metadata) == nil {
		for k, v := range metadata {
			if bad(k) || bad(v) {
				return "metadata"
			}
		}
	}
	for _, list := range []string{"messages", "tools"} {
		var entries []named
		_ = json.Unmarshal(m[list], &entries) // another shape is the upstream's to judge
		for i, e := range entries {
			if e.holdsNUL(bad) {
				return fmt.Sprintf("%s[%d]", list, i)
			}
		}
	}
	return ""
}

// named are the ids and names of a message or a tool.
type named struct {
	Name       any `json:"name"`
	ToolCallID any `json:"tool_call_id"`
	Function   struct {
		Name any `json:"name"`
	} `json:"function"`
	ToolCalls []struct {
		ID       any `json:"id"`
		Function struct {
			Name any `json:"name"`
		} `json:"function"`
	} `json:"tool_calls"`
}

func (n named) holdsNUL(bad func(any) bool) bool {
	if bad(n.Name) || bad(n.ToolCallID) || bad(n.Function.Name) {
		return true
	}
	for _, c := range n.ToolCalls {
		if bad(c.ID) || bad(c.Function.Name) {
			return true
		}
	}
	return false
}

// relay submits a streaming chat completion and passes its chunks on.
func (a *API) relay(x *exchange, n queue.New) error {
	l := a.Hub.Listen(n.ID, -1)
	defer l.Close()
	run, bare, err := a.begin(x, n)
	if err != nil {
		return err
	}
	w := watch(x.r.Context(), run)
	defer w.stop()
	out := &sse{x: x}
	err = pass(w.ctx, l, out)
	switch {
	case x.r.Context().Err() != nil, errors.Is(err, queue.ErrClientGone), errors.Is(err, stream.ErrOverrun):
		if bare {
			return a.quit(x, n)
		}
		return a.abandon(x, n)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errRunOver):
		return err
	}
	o := w.outcome()
	if x.status == 0 {
		return x.outcome(o) // it failed before its first chunk, or the upstream does not stream
	}
	x.state = o.To.String()
	if o.To == queue.Completed {
		return out.done()
	}
	// No [DONE]: a client that overlooks the error must not take the answer for
	// a whole one.
	cause := failed(o)
	data, err := json.Marshal(explain(cause))
	if err != nil {
		return fmt.Errorf("api: relay: %w", err)
	}
	x.cause = cause // the answer is whole: it says that it failed
	return out.event("", data)
}

// pass writes chunks as they come and returns why there are no more.
func pass(ctx context.Context, l *stream.Listener, out *sse) error {
	for {
		events, err := l.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := out.event("", e.Data); err != nil {
				return err
			}
		}
	}
}
