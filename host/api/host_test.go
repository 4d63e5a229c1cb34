package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/tenant"
)

// host is an API on a real server with fake ports.
type host struct {
	t      *testing.T
	store  *fakeStore
	runner *fakeRunner
	api    *api.API
	url    string
	key    string
	// endConns ends the contexts of all connections, as a host does at the end
	// of its drain.
	endConns context.CancelCauseFunc
	log      *fakeLog
}

// fakeLog is a log that a test may read at any time, and wait for.
type fakeLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string
}

func (l *fakeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines <- string(p)
	return l.text.Write(p)
}

func (h *host) logged() string {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	return h.log.text.String()
}

// awaitLog waits for a line that holds text.
func (h *host) awaitLog(text string) {
	h.t.Helper()
	for !strings.Contains(wait(h.t, h.log.lines, "log line with "+text), text) {
	}
}

func newHost(t *testing.T, change ...func(*api.Options)) *host {
	t.Helper()
	st := &fakeStore{records: map[queue.ID]*store.Record{}, canceled: make(chan queue.ID, 100)}
	hub := stream.NewHub(st, stream.Options{Poll: 5 * time.Millisecond, Unknown: 100 * time.Millisecond})
	runner := &fakeRunner{
		store: st, hub: hub, script: hello, runs: map[queue.ID]*fakeRun{},
		queued: make(chan queue.New, 100), stopped: make(chan error, 100),
	}
	directory, err := tenant.New([]tenant.Entry{
		{Tenant: tenant.Tenant{Name: "acme"}, KeyHashes: [][32]byte{sha256.Sum256([]byte("key-acme"))}},
		{
			Tenant:    tenant.Tenant{Name: "beta", Models: []string{"m1"}, Tools: tenant.Tools{Mode: tenant.OptIn}},
			KeyHashes: [][32]byte{sha256.Sum256([]byte("key-beta"))},
		},
		{
			Tenant:    tenant.Tenant{Name: "gamma", Tools: tenant.Tools{Allow: []string{"notes/list", "calc"}}},
			KeyHashes: [][32]byte{sha256.Sum256([]byte("key-gamma"))},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, store: st, runner: runner, key: "key-acme", log: &fakeLog{lines: make(chan string, 10000)}}
	o := api.Options{
		Store: st, Runner: runner, Models: fakeModels{"m2", "m1"}, Tenants: directory, Hub: hub,
		Tools:  fakeTools{tool("notes", "add"), tool("notes", "list"), tool("calc", "add")},
		Logger: hclog.New(&hclog.LoggerOptions{Output: h.log, Level: hclog.Debug, JSONFormat: true}),
	}
	for _, f := range change {
		f(&o)
	}
	h.api = api.New(o)
	var conns context.Context
	conns, h.endConns = context.WithCancelCause(context.Background())
	srv := httptest.NewUnstartedServer(h.api.Handler())
	srv.Config.BaseContext = func(net.Listener) context.Context { return conns }
	srv.Start()
	h.url = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := hub.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		srv.Close()
		h.endConns(nil)
		runner.wg.Wait()
		cancel()
		wg.Wait()
	})
	return h
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request; header is name, value, …
func (h *host) do(method, path, body string, header ...string) answer {
	h.t.Helper()
	res := h.open(context.Background(), method, path, body, header...)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// open sends a request and leaves the answer's body to be read.
func (h *host) open(ctx context.Context, method, path, body string, header ...string) *http.Response {
	h.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, h.url+path, rd)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

func (h *host) post(path, body string) answer { h.t.Helper(); return h.do("POST", path, body) }
func (h *host) get(path string) answer        { h.t.Helper(); return h.do("GET", path, "") }

// object is what tests look at of an answer.
type object struct {
	ID         string
	Object     string
	Status     string
	Background bool
	Deleted    bool
	Output     []struct {
		Type    string
		Status  string
		Content []struct{ Text string }
	}
	Error *struct {
		Message string
		Type    string
		Param   *string
		Code    *string
	}
	Data []struct {
		ID      string
		Created int64
	}
}

func (a answer) object(t *testing.T) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
	return o
}

func (o object) text() string {
	var b strings.Builder
	for _, item := range o.Output {
		for _, part := range item.Content {
			b.WriteString(part.Text)
		}
	}
	return b.String()
}

// wantError checks an answer in OpenAI's error shape.
func (a answer) wantError(t *testing.T, status int, code, param string) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got status %d, want %d: %s", a.status, status, a.body)
	}
	var got struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || len(got.Error) != 4 {
		t.Fatalf("got %s, %v, want error with message, type, param and code", a.body, err)
	}
	str := func(v any) string { s, _ := v.(string); return s }
	if str(got.Error["code"]) != code || str(got.Error["param"]) != param || str(got.Error["message"]) == "" || str(got.Error["type"]) == "" {
		t.Errorf("got %s, want code %q, param %q", a.body, code, param)
	}
	if !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("got headers %v, want x-request-id and JSON", a.header)
	}
}

// frame is one SSE event.
type frame struct {
	kind, data string
}

func (f frame) seq(t *testing.T) int64 {
	t.Helper()
	var e struct {
		Seq *int64 `json:"sequence_number"`
	}
	if err := json.Unmarshal([]byte(f.data), &e); err != nil || e.Seq == nil {
		t.Fatalf("event %q: want a sequence_number, %v", f.data, err)
	}
	return *e.Seq
}

// frames splits an event stream and checks its framing to the byte.
func frames(t *testing.T, b []byte) []frame {
	t.Helper()
	if !bytes.HasSuffix(b, []byte("\n\n")) || bytes.ContainsRune(b, '\r') {
		t.Fatalf("got stream %q, want frames that end with \\n\\n", b)
	}
	var list []frame
	for part := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		f, err := parseFrame(part)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

func parseFrame(part string) (frame, error) {
	lines := strings.Split(part, "\n")
	var f frame
	if kind, ok := strings.CutPrefix(lines[0], "event: "); ok {
		f.kind, lines = kind, lines[1:]
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "data: ") {
		return f, errors.New("got frame " + part + ", want one data line")
	}
	f.data = strings.TrimPrefix(lines[0], "data: ")
	return f, nil
}

// wait returns what c brings, within a time that only a fault exceeds.
func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s within 10 s", what)
		panic("unreachable")
	}
}
