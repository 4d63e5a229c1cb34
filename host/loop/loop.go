// Package loop drives one response: it asks response.Next what to do, runs the
// steps, stores their results and emits their events. It plans nothing itself
// and knows neither HTTP nor Wasm nor a database.
package loop

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// Store is what the loop needs of the store.
type Store interface {
	WriteAsync(ctx context.Context, w store.Write, done func(error))
	Get(ctx context.Context, tenant string, id queue.ID, parts store.Parts) (store.Record, error)
}

// Upstream makes model calls.
type Upstream interface {
	Candidates(model string) []abi.Candidate
	// Available reports whether some target of model is not cooling down; else
	// wait is how long the first of them yet will be.
	Available(model string) (open bool, wait time.Duration)
	// Kind returns the kind of API that a target speaks.
	Kind(target string) upstream.Kind
	Do(ctx context.Context, c upstream.Call) (upstream.Reply, error)
}

// Policy decides routes and retries; its answers are within the host's bounds.
type Policy interface {
	Route(ctx context.Context, q abi.RouteQuestion) (abi.RouteAnswer, policy.Decision)
	Retry(ctx context.Context, q abi.RetryQuestion, b policy.Bounds) (policy.Verdict, policy.Decision)
}

// Tools finds the tools that a response was offered when it was created.
type Tools interface {
	// Resolve pins the tools for one attempt: until Release, calls go to the
	// modules that were loaded now, whatever is swapped in meanwhile.
	Resolve(tenant string, offers []response.Offer) Toolset
}

// Toolset is the tools of one attempt.
type Toolset interface {
	Tools() []response.ServerTool
	// Check reports what is wrong with a call's arguments; the text is for the model.
	Check(t response.ServerTool, arguments []byte) error
	Call(ctx context.Context, c ToolCall) ToolResult
	Release()
}

// Remotes reaches the MCP servers that clients name.
type Remotes interface {
	// Tools asks a server for its tools, all pages of them. The error may be a
	// *RemoteError.
	Tools(ctx context.Context, s RemoteServer) ([]response.RemoteTool, error)
	// Call runs a tool once. c.Tool.Plugin is the server's label; Nested is not
	// looked at, and Effect is called before the request is sent.
	Call(ctx context.Context, s RemoteServer, c ToolCall) ToolResult
}

// RemoteServer is an MCP server and who asks it.
type RemoteServer struct {
	response.Remote
	response.Credentials
	Tenant string
}

// RemoteError says why a server did not answer. Both texts may be shown to the
// model and the client: nothing of them is the server's own.
type RemoteError struct {
	Code    string // "denied", "unreachable", "unauthorized", "invalid", "timeout"
	Message string
}

func (e *RemoteError) Error() string { return "loop: remote server: " + e.Code + ": " + e.Message }

// ToolCall is one try of a tool call.
type ToolCall struct {
	Tool      response.ServerTool
	Arguments []byte // JSON object
	Info      abi.CallInfo
	// Depth is how many tools wait for this call: 0 for one of the model's. From
	// 1 on it borrows its parent's slot.
	Depth int
	// Effect is to be called before each operation that changes something
	// outside. The first time it stores that effects began, under the claim's
	// fence, and each time it checks that the lease is still held. After an
	// error the operation must not begin, and the call is to end. It is never
	// nil and safe for concurrent use.
	Effect func(ctx context.Context) error
	Nested Nested // never nil
}

// Nested runs the tools that a running tool calls, each as a step of its own.
type Nested interface {
	// Call runs a tool of the response, by the name that its model knows it by,
	// or answers from what an earlier try of the caller got for the same call.
	// n is its place among the calls of the caller's try, from 0. The caller
	// waits for it, within ctx, which must be the caller's. What the tool wrote
	// to its plugin's state is committed when Call returns. The error is one
	// that wraps ErrNestedDenied or ErrNestedBudget; after any other the run is
	// over and the caller is to end.
	Call(ctx context.Context, n int, tool string, arguments []byte) (NestedReply, error)
}

// NestedReply is how a nested call ended: what a model would be told.
type NestedReply struct {
	Output  string
	IsError bool // Output is {"error":{"code","message"}}, or the tool's own text
}

// The errors that a tool may get for a nested call and go on.
var (
	// ErrNestedDenied: the tool is one of those that wait for this call, or too
	// many do.
	ErrNestedDenied = errors.New("loop: nested call denied")
	// ErrNestedBudget: the response has as many steps, or tool calls, as it may.
	ErrNestedBudget = errors.New("loop: no more tool calls in this response")
)

// ToolResult is how a try ended.
type ToolResult struct {
	Class      queue.Class
	Code       string        // of a failure that the guest reported: "invalid_args", …
	RetryAfter time.Duration // negative: not said
	Output     string        // what the model is told, errors included
	KV         []store.KVPut // nil unless Class is OK
	Generation string
	// Fuel is what the guest used. 0 says, of one that is GuestThrottled or
	// PluginUnavailable, that it did not begin: else it may have, amid its work.
	Fuel uint64
	Used response.Used
	// Detail says why the call failed, and Log is what the guest logged. They
	// stay on the step: neither the model nor the client is shown them. What is
	// beyond response.MaxDetail or response.MaxLog is cut.
	Detail string
	Log    string
}

// Options of a Loop. Zero fields take defaults.
type Options struct {
	Caps        response.Caps
	MaxFailures int           // retries a request may spend, 5
	InPlace     time.Duration // a retry of queued work within this waits here, 2 s; a longer one gives the slot back
	// Remotes reaches the servers of a brief; nil: none of them can be reached.
	Remotes    Remotes
	ListWithin time.Duration // how long a server may take to list its tools, 10 s
	CallWithin time.Duration // how long one of its calls may take, 60 s
	// Check holds a call's arguments against the JSON Schema of an agent; the
	// text of its error is for the model. nil: only that they are an object is
	// checked.
	Check  func(schema json.RawMessage, arguments []byte) error
	Logger hclog.Logger
	// Live reports whether this host's lease has time left, by its own clock: a
	// context that ends with the lease may end late on a busy host. nil: only
	// the context is asked.
	Live func() bool
}

// Loop drives responses. It is safe for concurrent use.
type Loop struct {
	store  Store
	caller *Caller
	policy Policy
	tools  Tools
	hub    *stream.Hub
	opt    Options
}

// New returns a Loop.
func New(s Store, c *Caller, t Tools, hub *stream.Hub, o Options) *Loop {
	if o.MaxFailures <= 0 {
		o.MaxFailures = 5
	}
	if o.InPlace <= 0 {
		o.InPlace = 2 * time.Second
	}
	if o.ListWithin <= 0 {
		o.ListWithin = 10 * time.Second
	}
	if o.CallWithin <= 0 {
		o.CallWithin = time.Minute
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Live == nil {
		o.Live = func() bool { return true }
	}
	return &Loop{store: s, caller: c, policy: c.Policy, tools: t, hub: hub, opt: o}
}

// Process drives the response of claim c to an ending. When ctx ends it waits
// for its steps to stop and returns the ending that fits ctx's cause.
func (l *Loop) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	r, err := l.open(ctx, c)
	if err != nil {
		return store.Ending{}, err
	}
	defer r.close()
	e, err := r.end(r.root.drive())
	r.left = err == nil
	return e, err
}
