package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// ToolServer speaks the Model Context Protocol with a client.
type ToolServer interface {
	// Serve answers a POST of a client of tenant, whose body was read, and
	// returns when none of its calls runs any more. tools are those that it may
	// call, under their Name. call runs one and returns what its model would be
	// told; the client is told the text of its error.
	Serve(w http.ResponseWriter, r *http.Request, body []byte, tenant string, tools []response.ServerTool,
		call func(ctx context.Context, t response.ServerTool, arguments []byte) (output string, failed bool, err error))
}

// mcpModel is the model of the lane that MCP clients' calls run in.
const mcpModel = "mcp"

// mcp serves POST /mcp: the tools of the tenant to an MCP client. There is no
// stream to GET and no session to DELETE.
func (a *API) mcp(x *exchange) error {
	if a.MCP == nil {
		return &Error{Status: http.StatusNotFound, Code: "unknown_url", Message: "There is nothing at this path."}
	}
	if err := x.checkOrigin(); err != nil {
		return err
	}
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.read(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) > 0 && b[0] == '[' {
		return &response.BadRequest{Code: "invalid_value", Message: "Batches of messages are not taken: send one message in each POST."}
	}
	brief, tools, err := a.toolBrief(x)
	if err != nil {
		return err
	}
	x.model = mcpModel
	r := x.r.Clone(x.r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	a.MCP.Serve(&direct{x}, r, body, x.tenant.Name, tools, func(ctx context.Context, t response.ServerTool, arguments []byte) (string, bool, error) {
		receipt, err := a.callTool(ctx, x, brief, t, arguments)
		if err != nil {
			return "", false, told(err)
		}
		return receipt.Output, receipt.Failed, nil
	})
	switch err := x.r.Context().Err(); {
	case x.status != 0:
		return nil
	case err != nil:
		return fmt.Errorf("api: mcp: %w", err)
	}
	return errors.New("api: mcp: there is no answer")
}

// checkOrigin refuses what a browser sends for a page of somewhere else. Where
// no key is needed, that is any page which is not of this machine: a foreign
// name may be made to lead here.
func (x *exchange) checkOrigin() error {
	origin := x.r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	ok := err == nil && u.Host != ""
	if _, open := x.a.Tenants.Open(); open {
		ok = ok && thisMachine(u.Hostname())
	} else {
		ok = ok && strings.EqualFold(u.Host, x.r.Host)
	}
	if ok {
		return nil
	}
	return &Error{Status: http.StatusForbidden, Code: "origin_not_allowed", Message: "Pages of this origin may not use this path."}
}

func thisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}

// toolBrief returns the tools of a tenant and the brief of a call of any of
// them. Who connects here has asked for them, so all that are granted are there,
// whatever the tenant's mode.
func (a *API) toolBrief(x *exchange) (response.Brief, []response.ServerTool, error) {
	t, req := x.tenant, &response.Request{Model: mcpModel}
	t.Tools.Mode = tenant.Auto
	brief := response.Brief{Request: req}
	tools, agents, err := a.offers(t, req)
	if err != nil {
		return brief, nil, err
	}
	brief.Agents = agents
	for _, tool := range tools {
		brief.Offers = append(brief.Offers, tool.Offer)
	}
	return brief, tools, nil
}

// toolReceipt is the body of the outcome of a tool call without a model.
type toolReceipt struct {
	Output string `json:"output"` // what a model would be told
	Failed bool   `json:"failed"`
}

// callTool runs one tool as a request of its own and waits for its end. When ctx
// ends first, the request is canceled.
func (a *API) callTool(ctx context.Context, x *exchange, brief response.Brief, t response.ServerTool, arguments []byte) (toolReceipt, error) {
	id := queue.NewID()
	brief.Direct = &response.Call{ID: "call_" + id.String(), Name: t.Name, Arguments: string(arguments)}
	body, err := brief.Encode()
	if err != nil {
		return toolReceipt{}, fmt.Errorf("api: mcp: %w", err)
	}
	n := queue.New{
		ID: id, Tenant: x.tenant.Name, Model: mcpModel, Path: pathMCP, Tier: tier(""),
		DeadlineIn: limited(a.Deadline), Body: body,
	}
	x.response = id
	run, err := a.Runner.Submit(ctx, store.Write{Insert: &n})
	if err != nil {
		return toolReceipt{}, err
	}
	x.attempt = 1
	o, err := run.Wait(ctx)
	switch {
	case ctx.Err() != nil:
		return toolReceipt{}, a.abandon(x, n)
	case err != nil:
		return toolReceipt{}, err
	case !o.To.Final():
		return toolReceipt{}, fmt.Errorf("api: %s: %w", id, queue.ErrLeaseLost)
	}
	x.state = o.To.String()
	if o.To != queue.Completed {
		return toolReceipt{}, failed(o)
	}
	var receipt toolReceipt
	if err := json.Unmarshal(o.Body, &receipt); err != nil {
		return receipt, fmt.Errorf("api: mcp: outcome of %s: %w", id, err)
	}
	return receipt, nil
}

// toldError is an error in the words that a client is told.
type toldError struct{ answer *Error }

func (e toldError) Error() string { return e.answer.Message }

// RetryAfter is how long the client should wait; 0: not said.
func (e toldError) RetryAfter() time.Duration { return e.answer.RetryAfter }

// told returns what is told of an error.
func told(err error) error {
	e := explain(err)
	if e == nil {
		e = &Error{Message: "The call was canceled.", cause: err}
	}
	return toldError{e}
}

// direct is the writer of an answer that somebody else writes.
type direct struct{ x *exchange }

// Header implements http.ResponseWriter.
func (d *direct) Header() http.Header { return d.x.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (d *direct) WriteHeader(status int) {
	if d.x.status == 0 {
		d.x.status, d.x.first = status, time.Now()
		d.x.w.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (d *direct) Write(p []byte) (int, error) {
	d.x.allowWrite()
	defer d.x.restWrite()
	d.WriteHeader(http.StatusOK)
	n, err := d.x.w.Write(p)
	if err != nil {
		d.x.cause = fmt.Errorf("api: answer: %w: %w", queue.ErrClientGone, err)
	}
	return n, err
}

// Unwrap gives an http.ResponseController what it needs.
func (d *direct) Unwrap() http.ResponseWriter { return d.x.w }
