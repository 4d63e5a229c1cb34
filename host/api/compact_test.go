package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// compacted is a compaction as clients read it.
type compacted struct {
	ID, Object string
	Created    int64 `json:"created_at"`
	Output     []struct {
		ID, Type, Role, Status string
		Content                []struct{ Type, Text string }
		Encrypted              string `json:"encrypted_content"`
	}
	Usage *struct {
		Total *int `json:"total_tokens"`
	}
}

func (h *host) compact(body string) (compacted, []byte) {
	h.t.Helper()
	a := h.post("/v1/responses/compact", body)
	var c compacted
	if err := json.Unmarshal(a.body, &c); a.status != 200 || err != nil || members(h.t, a.body) != "created_at id object output usage" {
		h.t.Fatalf("got %d %s, want a compaction", a.status, a.body)
	}
	return c, a.body
}

func TestCompact(t *testing.T) {
	h := newHost(t)
	bodies := h.bodies()
	c, raw := h.compact(`{"model":"m1","prompt_cache_key":"k","instructions":"speak Dutch","input":[
		{"role":"user","content":"one","id":"msg_1"},{"role":"assistant","content":"two"},{"role":"user","content":"three"}]}`)
	if c.Object != "response.compaction" || !strings.HasPrefix(c.ID, "resp_") || c.Created == 0 || c.Usage == nil || c.Usage.Total == nil || len(c.Output) != 3 {
		t.Fatalf("got %s", raw)
	}
	for i, text := range []string{"one", "three"} {
		it := c.Output[i]
		if it.Type != "message" || it.Role != "user" || it.Status != "completed" || it.ID == "" || len(it.Content) != 1 || it.Content[0].Text != text {
			t.Errorf("got %+v, want the user's message %s", it, text)
		}
	}
	last := c.Output[2]
	summary, ok := response.CompactionSummary(json.RawMessage(`{"encrypted_content":"` + last.Encrypted + `"}`))
	if last.Type != "compaction" || !strings.HasPrefix(last.ID, "cmp_") || !ok || summary != "Hello" {
		t.Errorf("got %+v with %q, want the model's summary", last, summary)
	}
	brief, err := response.DecodeBrief(wait(t, bodies, "run"))
	if err != nil {
		t.Fatal(err)
	}
	req := brief.Request
	if req.Store || len(req.Input) != 4 || req.PromptCacheKey != "k" || string(req.ToolChoice) != `"none"` || !strings.HasSuffix(*req.Instructions, "speak Dutch") {
		t.Errorf("got request %+v, want an unstored one with a message more", req)
	}
	h.get("/v1/responses/"+c.ID).wantError(t, 404, "not_found", "id")
}

// A compaction stands for what went before it: as an ancestor, and in the input.
func TestCompactChain(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"one"}`).object(t)
	c, raw := h.compact(`{"model":"m1","previous_response_id":"` + o.ID + `"}`)
	if len(c.Output) != 2 || c.Output[0].Content[0].Text != "one" {
		t.Fatalf("got %s, want the earlier message and the compaction", raw)
	}
	var again struct{ Output json.RawMessage }
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatal(err)
	}
	if a := h.post("/v1/responses", `{"model":"m1","input":`+string(again.Output)+`}`); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// Of many messages the latest are kept, the last one however long it is.
func TestCompactKeepsTheLatest(t *testing.T) {
	h := newHost(t)
	long := strings.Repeat("hello world ", 6000) // 12,000 tokens
	c, _ := h.compact(`{"model":"m1","input":[{"role":"user","content":"first ` + long + `"},{"role":"user","content":"second ` + long + `"},{"role":"user","content":"third"}]}`)
	if len(c.Output) != 3 || !strings.HasPrefix(c.Output[0].Content[0].Text, "second") {
		t.Errorf("got %d items, want the second message, the third and the compaction", len(c.Output))
	}
	c, _ = h.compact(`{"model":"m1","input":"` + long + long + `"}`)
	if len(c.Output) != 2 || c.Output[0].Content[0].Text != long+long {
		t.Errorf("got %d items, want the one message and the compaction", len(c.Output))
	}
}

func TestCompactFails(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		body, code, param string
		status            int
	}{
		{`{"input":"x"}`, "missing_required_parameter", "model", 400},
		{`{"model":"m1"}`, "missing_required_parameter", "input", 400},
		{`{"model":"m1","input":[]}`, "missing_required_parameter", "input", 400},
		{`{"model":"m1","input":7}`, "invalid_type", "input", 400},
		{`{"model":"m1","input":"x","instructions":7}`, "invalid_type", "instructions", 400},
		{`{"model":"nobody","input":"x"}`, "model_not_found", "model", 404},
		{`{"model":"m1","input":[{"role":"robot","content":"x"}]}`, "invalid_value", "input[0].role", 400},
		{`[]`, "invalid_type", "", 400},
		{`{"model":"m1","previous_response_id":"resp_x"}`, "previous_response_not_found", "previous_response_id", 400},
	} {
		h.post("/v1/responses/compact", c.body).wantError(t, c.status, c.code, c.param)
	}
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.emit(r.stream.ModelDone(response.ModelOutput{Text: "Hel", Finish: "length"}))
		r.emit(r.stream.Finish(response.End{Status: "incomplete", Reason: "max_output_tokens", Completed: time.Now()}))
		r.end(queue.Outcome{To: queue.Completed, Class: queue.OK, Status: 200, Body: r.stream.Response()})
	}
	h.post("/v1/responses/compact", `{"model":"m1","input":"x"}`).wantError(t, 502, "compaction_failed", "")
	h.runner.script = func(r *fakeRun) { r.end(queue.Outcome{To: queue.Failed, Class: queue.RateLimited, Status: 429}) }
	h.post("/v1/responses/compact", `{"model":"m1","input":"x"}`).wantError(t, 429, "rate_limit_exceeded", "")
}
