package loop_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// TestServerRepeatsCredentials checks that what a client sent for a server is
// written nowhere and shown to nobody, even where the server repeats it.
func TestServerRepeatsCredentials(t *testing.T) {
	const token, cookie = "tok-1234567890", "Basic dXNlcjpwYXNz"
	repeats := func(s loop.RemoteServer) string {
		return s.Authorization + " and " + s.Headers["Cookie"] + " " + cookie[6:]
	}
	m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){}}
	m.list["maps"] = func(context.Context) ([]response.RemoteTool, error) {
		return []response.RemoteTool{{Name: "find", Description: repeats(m.asked[0]), InputSchema: json.RawMessage(`{"type":"object"}`)}}, nil
	}
	m.call = func(context.Context, loop.ToolCall) loop.ToolResult {
		said := repeats(m.asked[0])
		return loop.ToolResult{Class: queue.GuestError, Code: "permanent", Output: said, Detail: said, Log: said, RetryAfter: -1}
	}
	r := newRig(t, thenTell("find {}"), loop.Options{Remotes: m})
	r.refers(maps())
	refers := r.change
	r.change = func(j *response.Brief, n *queue.New) {
		refers(j, n)
		n.Secret = []byte(`{"maps":{"authorization":"` + token + `","headers":{"Cookie":"` + cookie + `"}}}`)
	}
	o, events, id := r.run(`{"model":"m","input":"hello","stream":true}`)
	if m.asked[0].Authorization != token || m.asked[0].Headers["Cookie"] != cookie {
		t.Fatalf("the server was sent %+v", m.asked[0])
	}
	rec := r.record(id)
	all := []string{string(o.Body), string(rec.Body)}
	for _, e := range events {
		all = append(all, string(e.Data))
	}
	for _, s := range rec.Steps {
		all = append(all, string(s.Output)+s.Detail+s.Log)
	}
	for _, d := range rec.Decisions {
		all = append(all, string(d.Question)+string(d.Answer))
	}
	for _, req := range r.upstream.Requests() {
		all = append(all, string(req.Body))
	}
	for _, q := range r.policy.questions {
		asked, _ := json.Marshal(q)
		all = append(all, string(asked))
	}
	for _, text := range all {
		if strings.Contains(text, token) || strings.Contains(text, cookie[6:]) {
			t.Errorf("the client's credentials are in %.300s", text)
		}
	}
	if got := r.object(o.Body).text(); !strings.Contains(got, "[hidden] and [hidden]") {
		t.Errorf("the model was told %q", got)
	}
}
