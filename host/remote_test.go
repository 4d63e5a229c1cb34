package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/demo"
)

// secret is in every credential that tests give the host.
const secret = "hunter-two"

// running is a host that runs until the test, or stop, ends it.
type running struct {
	*testing.T
	url  string
	file string // of its database
	logs *said
	stop func()
}

// said keeps what a host logs.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// runs starts a host on a database of its own whose model m is the script.
func runs(t *testing.T, script demo.Script, change func(*host.Config)) *running {
	t.Helper()
	up, err := demo.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	r := &running{T: t, file: filepath.Join(t.TempDir(), "c.db"), logs: &said{}}
	c := host.Config{
		Listen: "127.0.0.1:0", Store: "sqlite:" + r.file, Logger: hclog.New(&hclog.LoggerOptions{Output: r.logs, Level: hclog.Trace}),
		Upstreams: []host.Upstream{{Name: "up", Kind: "chat", BaseURL: up.URL()}},
		Models:    []host.Model{{Name: "m", Targets: []host.Target{{Upstream: "up", Model: "real"}}}},
		Tenants:   []host.Tenant{{Name: "t", KeyHashes: [][32]byte{sha256.Sum256([]byte("key"))}}},
	}
	change(&c)
	h, err := host.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	r.url = "http://" + h.Addr().String()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) do(method, path, body string) (int, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// item is what tests look at of an item of a response.
type item struct {
	Type, ID, Name, Output string
	Label                  string `json:"server_label"`
	Tools                  []struct{ Name string }
	Error                  any
	Approval               string `json:"approval_request_id"`
	Content                []struct{ Text string }
}

type object struct {
	ID, Status string
	Output     []item
}

// respond creates a response that must complete.
func (r *running) respond(body string) (o object) {
	r.Helper()
	status, text := r.do(http.MethodPost, "/v1/responses", body)
	if err := json.Unmarshal([]byte(text), &o); err != nil || status != http.StatusOK || o.Status != "completed" {
		r.Fatalf("%s: got %d %s", body, status, text)
	}
	return o
}

// types are the types of a response's items.
func (o object) types() string {
	var all []string
	for _, it := range o.Output {
		all = append(all, it.Type)
	}
	return strings.Join(all, " ")
}

// server is an MCP server that asks for credentials; broken makes it fail.
func server(t *testing.T) (address string, broken string) {
	t.Helper()
	s := sdk.NewServer(&sdk.Implementation{Name: "far", Version: "1"}, nil)
	sdk.AddTool(s, &sdk.Tool{Name: "add", Description: "adds"}, func(_ context.Context, _ *sdk.CallToolRequest, in struct {
		A, B int
	},
	) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: fmt.Sprint("sum ", in.A+in.B)}}}, nil, nil
	})
	h := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/broken"):
			w.WriteHeader(http.StatusInternalServerError)
		case r.Header.Get("Authorization") != "Bearer "+secret || r.Header.Get("X-Extra") != secret+"-extra":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/mcp", srv.URL + "/mcp/broken"
}

// adder calls the first tool that it is offered once, then says what that said.
func adder(_ int, req demo.Request) demo.Turn {
	var q struct {
		Tools []struct {
			Function struct{ Name string }
		}
		Messages []struct {
			Role    string
			Content any
		}
	}
	if err := json.Unmarshal(req.Body, &q); err != nil {
		return demo.Turn{Status: http.StatusBadRequest}
	}
	last := q.Messages[len(q.Messages)-1]
	if last.Role == "tool" || len(q.Tools) == 0 {
		return demo.Turn{Text: fmt.Sprint("heard: ", last.Content)}
	}
	return demo.Turn{Calls: []demo.Call{{ID: "c1", Name: q.Tools[0].Function.Name, Arguments: `{"A":2,"B":3}`}}}
}

// A server that a request names: its tools are listed, called after approval or
// at once, and what authorizes the host is nowhere to be read afterwards.
func TestRemoteServer(t *testing.T) {
	address, broken := server(t)
	port := mustPort(t, address)
	r := runs(t, adder, func(c *host.Config) {
		c.MCP.HTTP = []host.HTTPRule{{Scheme: "http", Host: "127.0.0.1", Port: port, Path: "/mcp", Private: true}}
	})
	tool := func(address, rest string) string {
		return fmt.Sprintf(`[{"type":"mcp","server_label":"far","server_url":%q,"authorization":"%s","headers":{"X-Extra":"%s-extra"}%s}]`, address, secret, secret, rest)
	}
	ask := r.respond(`{"model":"m","input":"add","tools":` + tool(address, "") + `}`)
	if got := ask.types(); got != "mcp_list_tools mcp_approval_request" || ask.Output[0].Tools[0].Name != "add" || ask.Output[1].Name != "add" {
		t.Fatalf("asked: %+v", ask)
	}
	for approve, want := range map[bool]string{true: "sum 5", false: "denied"} {
		next := r.respond(fmt.Sprintf(`{"model":"m","previous_response_id":%q,"input":[{"type":"mcp_approval_response","approval_request_id":%q,"approve":%t,"reason":"because"}],"tools":%s}`,
			ask.ID, ask.Output[1].ID, approve, tool(address, "")))
		last := next.Output[len(next.Output)-1]
		if next.types() != "mcp_call message" || next.Output[0].Approval != ask.Output[1].ID ||
			!strings.Contains(last.Content[0].Text, want) || (next.Output[0].Error == nil) != approve {
			t.Errorf("approve %t: %+v", approve, next)
		}
	}
	at := r.respond(`{"model":"m","input":"add","tools":` + tool(address, `,"require_approval":"never"`) + `}`)
	if at.types() != "mcp_list_tools mcp_call message" || at.Output[1].Output != "sum 5" {
		t.Errorf("without approval: %+v", at)
	}
	ids := []string{ask.ID, at.ID}
	for _, address := range []string{broken, address} {
		failed := r.respond(`{"model":"m","input":"add","tools":` + strings.Replace(tool(address, ""), `"`+secret+`"`, `"`+secret+`-wrong"`, 1) + `}`)
		if failed.types() != "mcp_list_tools message" || failed.Output[0].Error == nil || len(failed.Output[0].Tools) != 0 {
			t.Errorf("a list that fails: %+v", failed)
		}
		ids = append(ids, failed.ID)
	}
	status, text := r.do(http.MethodPost, "/v1/responses", `{"model":"m","input":"add","tools":`+tool("http://127.0.0.1:1/mcp", "")+`}`)
	if status != http.StatusBadRequest || !strings.Contains(text, "tools[0].server_url") || strings.Contains(text, secret) {
		t.Errorf("an address that no rule allows: got %d %s", status, text)
	}
	for _, id := range ids {
		for _, path := range []string{id, id + "?stream=true", id + "/input_items"} {
			if status, text := r.do(http.MethodGet, "/v1/responses/"+path, ""); status != http.StatusOK || strings.Contains(text, secret) {
				t.Errorf("%s: got %d %s; want 200 without credentials", path, status, text)
			}
		}
	}
	r.stop()
	if said := r.logs.b.String(); strings.Contains(said, secret) {
		t.Errorf("the log holds credentials: %s", said)
	}
	if n := holding(t, r.file, secret); n > 0 {
		t.Errorf("%d rows hold credentials after the end", n)
	}
	if holding(t, r.file, "sum 5") == 0 {
		t.Error("no row holds what the tool said: the rows were not looked at")
	}
}

func mustPort(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.Split(address, "/")[2])
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// holding counts the values of a database that hold a text.
func holding(t *testing.T, file, text string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range column(t, db, `select name from sqlite_master where type = 'table'`) {
		for _, field := range column(t, db, `select name from pragma_table_info(?)`, table) {
			var found int
			query := fmt.Sprintf(`select count(*) from %q where instr(cast(%q as blob), cast(? as blob)) > 0`, table, field)
			if err := db.QueryRowContext(t.Context(), query, text).Scan(&found); err != nil {
				t.Fatal(err)
			}
			n += found
		}
	}
	return n
}

func column(t *testing.T, db *sql.DB, query string, args ...any) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
