package mcp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/response"
)

// CallFunc runs one tool and returns what its model would be told. The error is
// of a call that did not come to an end; the client is told its text.
type CallFunc func(ctx context.Context, t response.ServerTool, arguments []byte) (output string, failed bool, err error)

// Server serves tools to MCP clients. It keeps no sessions, so that any host
// may answer any request: nothing that it serves needs one. What it calls a
// session only tells one client's calls from another's, so that a client may
// cancel its own on the host that runs them. It is safe for concurrent use.
type Server struct {
	http *sdk.StreamableHTTPHandler

	mu    sync.Mutex
	calls map[callKey]context.CancelFunc
}

// callKey is a call that its client may cancel.
type callKey struct{ tenant, session, id string }

// NewServer returns a Server of this version of the host.
func NewServer(version string) *Server {
	s := &Server{calls: map[callKey]context.CancelFunc{}}
	server := sdk.NewServer(&sdk.Implementation{Name: "casemate", Version: version}, &sdk.ServerOptions{
		Capabilities: &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{}},
		SetCacheable: func(_ context.Context, _ sdk.Request, c *sdk.Cacheable) {
			c.CacheScope, c.TTLMs = "private", 0 // a list is its tenant's
		},
	})
	server.AddReceivingMiddleware(serve)
	s.http = sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true, PropagateRequestCancellation: true,
		// Whoever calls Serve has seen to both, with what it knows of its clients.
		DisableLocalhostProtection: true, MaxRequestBodyBytes: -1,
	})
	return s
}

// visit is one request of a client.
type visit struct {
	tools []response.ServerTool
	call  CallFunc
	ctx   context.Context // of the HTTP request

	mu    sync.Mutex
	over  bool
	calls sync.WaitGroup
}

type visitKey struct{}

// Serve answers a POST of a client of tenant, who may call tools, and returns
// when none of its calls runs any more. body is that of r. A client that leaves
// gives its call up, whatever version of the protocol it speaks: there is no
// stream that it could come back to.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, body []byte, tenant string, tools []response.ServerTool,
	call func(ctx context.Context, t response.ServerTool, arguments []byte) (output string, failed bool, err error),
) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	m := peek(body)
	session := r.Header.Get(sessionHeader)
	switch {
	case m.Method == "initialize":
		w.Header().Set(sessionHeader, rand.Text())
	case m.Method == "tools/call" && session != "":
		defer s.track(callKey{tenant, session, string(m.ID)}, cancel)()
	case m.Method == "notifications/cancelled" && session != "":
		s.give(callKey{tenant, session, string(m.Params.RequestID)})
	}
	v := &visit{tools: tools, call: call, ctx: ctx}
	defer v.wait()
	s.http.ServeHTTP(w, r.WithContext(context.WithValue(ctx, visitKey{}, v)))
	if ctx.Err() != nil && r.Context().Err() == nil {
		w.WriteHeader(http.StatusAccepted) // canceled: there is no answer
	}
}

const sessionHeader = "Mcp-Session-Id"

// message is what Serve looks at of a client's message.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		RequestID json.RawMessage `json:"requestId"`
	} `json:"params"`
}

// peek reads a message as far as it is one.
func peek(body []byte) message {
	var m message
	if json.Unmarshal(body, &m) != nil {
		return message{}
	}
	return m
}

// track lets a call be canceled until what it returns is called. Of two calls
// that a client gives one id only the first can be.
func (s *Server) track(k callKey, cancel context.CancelFunc) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.calls[k]; taken {
		return func() {}
	}
	s.calls[k] = cancel
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.calls, k)
	}
}

// give cancels a call, if it runs here.
func (s *Server) give(k callKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.calls[k]; cancel != nil {
		cancel()
	}
}

// begin counts a call; it reports false when nobody waits for it any more.
func (v *visit) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over || v.ctx.Err() != nil {
		return false
	}
	v.calls.Add(1)
	return true
}

// wait lets no call begin any more and waits for those that did.
func (v *visit) wait() {
	v.mu.Lock()
	v.over = true
	v.mu.Unlock()
	v.calls.Wait()
}

// serve answers what a client asks about tools, and leaves the handshake to the
// library. There is nothing else here.
func serve(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (sdk.Result, error) {
		v, _ := ctx.Value(visitKey{}).(*visit)
		switch {
		case v == nil:
		case method == "initialize", method == "ping", method == "server/discover", strings.HasPrefix(method, "notifications/"):
			return next(ctx, method, req)
		case method == "tools/list":
			res, err := next(ctx, method, req)
			if l, ok := res.(*sdk.ListToolsResult); ok && err == nil {
				l.Tools = v.list()
			}
			return res, err
		case method == "tools/call":
			if c, ok := req.(*sdk.CallToolRequest); ok && c.Params != nil {
				return v.run(ctx, c.Params)
			}
		}
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: fmt.Sprintf("there is no method %.64q here", method)}
	}
}

// list returns the tools as a client sees them.
func (v *visit) list() []*sdk.Tool {
	tools := make([]*sdk.Tool, 0, len(v.tools))
	for _, t := range v.tools {
		listed := &sdk.Tool{Name: t.Name, Description: t.Description, InputSchema: inputSchema(t.Parameters)}
		switch t.Effects {
		case "pure":
			listed.Annotations = &sdk.ToolAnnotations{ReadOnlyHint: true}
		case "idempotent":
			listed.Annotations = &sdk.ToolAnnotations{IdempotentHint: true}
		}
		tools = append(tools, listed)
	}
	return tools
}

// inputSchema returns a schema that clients take: of an object.
func inputSchema(raw json.RawMessage) any {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return json.RawMessage(noParameters)
	}
	if m["type"] == nil {
		m["type"] = json.RawMessage(`"object"`)
		return m
	}
	return raw
}

// run calls a tool. It ends with the client's request, whose context older
// versions of the protocol do not hand on.
func (v *visit) run(ctx context.Context, p *sdk.CallToolParamsRaw) (sdk.Result, error) {
	for _, t := range v.tools {
		if t.Name != p.Name {
			continue
		}
		if !v.begin() {
			return nil, context.Canceled
		}
		defer v.calls.Done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(v.ctx, cancel)()
		arguments := []byte(p.Arguments)
		if len(arguments) == 0 || string(arguments) == "null" {
			arguments = []byte("{}")
		}
		output, failed, err := v.call(ctx, t, arguments)
		if err != nil {
			return nil, callError(err)
		}
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: output}}, IsError: failed}, nil
	}
	return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: fmt.Sprintf("unknown tool %.64q", p.Name)}
}

// callFailed is the code of a call that did not come to an end.
const callFailed = -32000

// callError is what a client is told of such a call.
func callError(err error) error {
	e := &jsonrpc.Error{Code: callFailed, Message: err.Error()}
	if later, ok := err.(interface{ RetryAfter() time.Duration }); ok && later.RetryAfter() > 0 {
		e.Data, _ = json.Marshal(map[string]int64{"retry_after_ms": later.RetryAfter().Milliseconds()})
	}
	return e
}
