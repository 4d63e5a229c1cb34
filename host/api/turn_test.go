package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// submitted makes the host's runner hand out what it is given, after asking
// refuse where that is not nil.
func (h *host) submitted(refuse func(store.Write) error) <-chan store.Write {
	writes := make(chan store.Write, 100)
	h.runner.refuse = func(w store.Write) error {
		n := *w.Insert
		w.Insert = &n
		writes <- w
		if refuse != nil {
			return refuse(w)
		}
		return nil
	}
	return writes
}

// conversation makes a conversation and returns its id.
func (h *host) conversation(items string) string {
	h.t.Helper()
	return strings.TrimPrefix(h.newConversation(items), "/v1/conversations/")
}

func briefIn(t *testing.T, w store.Write) response.Brief {
	t.Helper()
	brief, err := response.DecodeBrief(w.Insert.Body)
	if err != nil {
		t.Fatal(err)
	}
	return brief
}

func rawItems(t *testing.T, items []response.Item, id queue.ID) string {
	t.Helper()
	b, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), id.String(), "ID")
}

// Items can be listed under ids that stay.
func TestInputItemsGetIDs(t *testing.T) {
	h := newHost(t)
	writes := h.submitted(nil)
	if a := h.post("/v1/responses", `{"model":"m1","input":[{"role":"user","content":"a"},{"id":"msg_own","type":"message","role":"user","content":"b"}]}`); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w := <-writes
	want := `[{"content":"a","id":"msg_ID_i0","role":"user","type":"message"},{"id":"msg_own","type":"message","role":"user","content":"b"}]`
	if got := rawItems(t, briefIn(t, w).Request.Input, w.Insert.ID); got != want {
		t.Errorf("input: got %s, want %s", got, want)
	}
}

// A reference stands for an item of a response of the same tenant.
func TestItemReferences(t *testing.T) {
	h := newHost(t)
	writes := h.submitted(nil)
	first := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	hex := strings.TrimPrefix(first.ID, "resp_")
	in, out := "msg_"+hex+"_i0", "msg_"+hex+"_0"
	<-writes
	refer := func(rest string, ids ...string) answer {
		items := `{"role":"user","content":"and"}`
		for _, id := range ids {
			items += `,{"type":"item_reference","id":"` + id + `"}`
		}
		return h.post("/v1/responses", `{"model":"m1","input":[`+items+`]`+rest+`}`)
	}
	if a := refer("", in, out); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w := <-writes
	input := briefIn(t, w).Request.Input
	if len(input) != 3 || input[1].ID != in || input[2].ID != out || !strings.Contains(string(input[2].Raw), "Hello") {
		t.Errorf("input: got %s", rawItems(t, input, w.Insert.ID))
	}
	if a := refer(`,"previous_response_id":"`+first.ID+`"`, out); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w = <-writes
	if brief := briefIn(t, w); len(brief.Request.Input) != 1 || len(brief.Context) != 2 {
		t.Errorf("an item of the context: got %d items of input, want it once", len(brief.Request.Input))
	}
	for _, id := range []string{"msg_" + hex + "_7", "msg_" + queue.NewID().String() + "_0", "msg_1"} {
		refer("", out, id).wantError(t, 400, "item_not_found", "input[2]")
	}
	h.key = "key-beta"
	refer("", out).wantError(t, 400, "item_not_found", "input[1]")
}

// What references lead to is no larger than what could be sent; what stands
// beside it counts for nothing.
func TestReferencesToLargeItems(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.MaxBodyBytes = 10_000 })
	long := strings.Repeat("x", 4000)
	var large, small []string
	for range 3 {
		o := h.post("/v1/responses", `{"model":"m1","input":[{"role":"user","content":"`+long+`"},{"role":"user","content":"hi"}]}`).object(t)
		hex := strings.TrimPrefix(o.ID, "resp_")
		large = append(large, `{"type":"item_reference","id":"msg_`+hex+`_i0"}`)
		small = append(small, `{"type":"item_reference","id":"msg_`+hex+`_i1"}`, `{"type":"item_reference","id":"msg_`+hex+`_i1"}`)
	}
	ask := func(items []string) answer {
		return h.post("/v1/responses", `{"model":"m1","input":[`+strings.Join(items, ",")+`]}`)
	}
	ask(large).wantError(t, 400, "context_length_exceeded", "input")
	for _, items := range [][]string{small, large[:2]} {
		if a := ask(items); a.status != 200 {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
}

func TestReferencesToTooManyResponses(t *testing.T) {
	h := newHost(t)
	items := make([]string, 1001)
	for i := range items {
		items[i] = `{"type":"item_reference","id":"msg_` + queue.NewID().String() + `_0"}`
	}
	h.post("/v1/responses", `{"model":"m1","input":[`+strings.Join(items, ",")+`]}`).wantError(t, 400, "item_not_found", "input[0]")
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	rec, err := h.store.Get(context.Background(), "acme", idOf(t, o.ID), store.Parts{Body: true, Result: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		id := queue.NewID()
		copied := rec
		copied.ID = id
		copied.Result = &store.Result{Status: 200, Body: []byte(strings.ReplaceAll(string(rec.Result.Body), strings.TrimPrefix(o.ID, "resp_"), id.String()))}
		h.store.mu.Lock()
		h.store.records[id] = &copied
		h.store.mu.Unlock()
		items[i] = `{"type":"item_reference","id":"msg_` + id.String() + `_0"}`
	}
	h.post("/v1/responses", `{"model":"m1","input":[`+strings.Join(items, ",")+`]}`).wantError(t, 400, "invalid_value", "input[1000]")
}

func idOf(t *testing.T, public string) queue.ID {
	t.Helper()
	id, err := queue.ParseID(strings.TrimPrefix(public, "resp_"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fakeContents are the files of tenant acme.
type fakeContents map[string]string

func (f fakeContents) Content(_ context.Context, tenant, id string) (name, mediaType string, data []byte, err error) {
	content, ok := f[id]
	if !ok || tenant != "acme" {
		return "", "", nil, fmt.Errorf("store: file %s: %w", id, queue.ErrNotFound)
	}
	return id + ".txt", "text/plain", []byte(content), nil
}

func TestFilesAreResolved(t *testing.T) {
	h := newHost(t, func(o *api.Options) {
		o.Files, o.MaxBodyBytes = fakeContents{"file_a": "a", "file_big": strings.Repeat("x", 900)}, 2000
	})
	writes := h.submitted(nil)
	body := func(ids ...string) string {
		var parts []string
		for _, id := range ids {
			parts = append(parts, `{"type":"input_file","file_id":"`+id+`"}`)
		}
		return `{"model":"m1","input":[{"id":"m","role":"user","content":[` + strings.Join(parts, ",") + `]}]}`
	}
	if a := h.post("/v1/responses", body("file_a")); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	w := <-writes
	want := `[{"content":[{"file_data":"data:text/plain;base64,YQ==","filename":"file_a.txt","type":"input_file"}],"id":"m","role":"user"}]`
	if got := rawItems(t, briefIn(t, w).Request.Input, w.Insert.ID); got != want {
		t.Errorf("input: got %s, want %s", got, want)
	}
	h.post("/v1/responses", body("file_a", "file_b")).wantError(t, 400, "file_not_found", "input[0].content[1].file_id")
	h.post("/v1/responses", body("file_big", "file_big", "file_big")).wantError(t, 400, "context_length_exceeded", "input[0].content[2].file_id")
	h.post("/v1/responses", body("file_big", "file_big")).wantError(t, 400, "context_length_exceeded", "input")
	h.key = "key-beta"
	h.post("/v1/responses", body("file_a")).wantError(t, 400, "file_not_found", "input[0].content[0].file_id")
}

// A response goes on from a conversation, as it is when the response is taken in.
func TestConversationOfAResponse(t *testing.T) {
	h := newHost(t)
	conversation := h.conversation(`[{"id":"msg_a","type":"message","role":"user","content":"before"}]`)
	stale := 2
	writes := h.submitted(func(w store.Write) error {
		if stale--; stale >= 0 {
			return fmt.Errorf("claimer: %w", &store.ConversationBusy{ID: w.Join.Conversation, Stale: true})
		}
		return nil
	})
	a := h.post("/v1/responses", `{"model":"m1","input":"hi","conversation":"`+conversation+`"}`)
	if a.status != 200 || !strings.Contains(string(a.body), `"conversation":{"id":"`+conversation+`"}`) {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	first := <-writes
	<-writes
	w := <-writes
	brief := briefIn(t, w)
	if w.Join == nil || "conv_"+w.Join.Conversation.String() != conversation || "conv_"+brief.Conversation != conversation {
		t.Errorf("join: got %+v, brief %q", w.Join, brief.Conversation)
	}
	if first.Insert.ID != w.Insert.ID || len(brief.Context) != 1 || brief.Context[0].ID != "msg_a" {
		t.Errorf("got %s then %s, context %+v", first.Insert.ID, w.Insert.ID, brief.Context)
	}
	for _, n := range []string{"conv_" + queue.NewID().String(), "conv_x", "x"} {
		h.post("/v1/responses", `{"model":"m1","input":"hi","conversation":"`+n+`"}`).wantError(t, 404, "not_found", "conversation")
	}
	h.key = "key-beta"
	h.post("/v1/responses", `{"model":"m1","input":"hi","conversation":"`+conversation+`"}`).wantError(t, 404, "not_found", "conversation")
}

func TestConversationIsBusy(t *testing.T) {
	for name, busy := range map[string]error{
		"another response":      &store.ConversationBusy{},
		"it changes every time": &store.ConversationBusy{Stale: true},
		"gone meanwhile":        queue.ErrNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			conversation := h.conversation(`[]`)
			writes := h.submitted(func(store.Write) error { return fmt.Errorf("claimer: %w", busy) })
			for _, stream := range []string{"true", "false"} {
				a := h.post("/v1/responses", `{"model":"m1","input":"hi","conversation":"`+conversation+`","stream":`+stream+`}`)
				if errors.Is(busy, queue.ErrNotFound) {
					a.wantError(t, 404, "not_found", "conversation")
					continue
				}
				a.wantError(t, 409, "conversation_busy", "conversation")
				if a.header.Get("Retry-After") != "1" || a.header.Get("X-Should-Retry") != "" {
					t.Errorf("headers: got %v, want a time to wait", a.header)
				}
			}
			if n := len(writes); name == "it changes every time" && n != 8 {
				t.Errorf("got %d tries of two requests, want 4 each", n)
			}
		})
	}
}

// windowModels take so many tokens.
type windowModels struct {
	fakeModels
	window int
}

func (m windowModels) Window(string) int { return m.window }

func TestWindowOfAModel(t *testing.T) {
	h := newHost(t, func(o *api.Options) {
		o.Models, o.Tools = windowModels{fakeModels{"m1"}, 200}, fakeTools{}
	})
	writes := h.submitted(nil)
	long := strings.Repeat("many words are in this text ", 20)
	body := `{"model":"m1","truncation":"%s","input":[{"role":"user","content":"` + long + `"},{"role":"assistant","content":"` + long + `"},{"role":"user","content":"short"}]}`
	h.post("/v1/responses", fmt.Sprintf(body, "disabled")).wantError(t, 400, "context_length_exceeded", "input")
	a := h.post("/v1/responses", fmt.Sprintf(body, "auto"))
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if brief := briefIn(t, <-writes); len(brief.Request.Input) != 3 || len(brief.Items()) >= 3 {
		t.Errorf("got %d items of %d", len(brief.Items()), len(brief.Request.Input))
	}
	h.post("/v1/responses", `{"model":"m1","truncation":"auto","input":"`+long+long+`"}`).wantError(t, 400, "context_length_exceeded", "input")
	if a := h.post("/v1/responses", `{"model":"m1","input":"short"}`); a.status != 200 {
		t.Errorf("short: got %d %s", a.status, a.body)
	}
}

// What the count of a request says is what decides whether it fits: to the
// token, with room for the output that it asks for.
func TestWindowIsWhatIsCounted(t *testing.T) {
	long := strings.Repeat("many words are in this text ", 20)
	rest := `"model":"m1","instructions":"` + long + `","tools":[{"type":"function","name":"f","description":"does things"},{"type":"custom","name":"g"}],` +
		`"text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object"}}},"input":[{"role":"user","content":"` + long + `"},` +
		`{"type":"function_call","name":"f","call_id":"c","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"` + long + `"}]}`
	var counted struct {
		Tokens int `json:"input_tokens"`
	}
	if err := json.Unmarshal(newHost(t).post("/v1/responses/input_tokens", `{`+rest).body, &counted); err != nil || counted.Tokens < 200 {
		t.Fatalf("got %d tokens, %v", counted.Tokens, err)
	}
	for _, tt := range []struct {
		name, ask string
		window    int
		param     string // of the refusal; "": none
	}{
		{"as many", ``, counted.Tokens, ""},
		{"one too few", ``, counted.Tokens - 1, "input"},
		{"output beside them", `"max_output_tokens":50,`, counted.Tokens + 50, ""},
		{"output has no room", `"max_output_tokens":50,`, counted.Tokens + 49, "input"},
		{"output alone is too much", `"max_output_tokens":50,`, 50, "max_output_tokens"},
	} {
		h := newHost(t, func(o *api.Options) { o.Models = windowModels{fakeModels{"m1"}, tt.window} })
		a := h.post("/v1/responses", `{`+tt.ask+rest)
		switch {
		case tt.param != "":
			a.wantError(t, 400, "context_length_exceeded", tt.param)
		case a.status != 200:
			t.Errorf("%s: got %d %s", tt.name, a.status, a.body)
		}
	}
}

// What goes on from other items needs none of its own, but something there must
// be.
func TestInputMayBeLeftOut(t *testing.T) {
	h := newHost(t)
	writes := h.submitted(nil)
	id := h.conversation(`[{"role":"user","content":"a"}]`)
	for _, body := range []string{
		`{"model":"m1","conversation":"` + id + `"}`,
		`{"model":"m1","conversation":"` + id + `","input":null}`,
		`{"model":"m1","input":[],"instructions":"Say hello."}`,
	} {
		if a := h.post("/v1/responses", body); a.status != 200 {
			t.Fatalf("%s: got %d %s", body, a.status, a.body)
		}
		if in := briefIn(t, <-writes).Request.Input; len(in) != 0 {
			t.Errorf("%s: got %d items of its own", body, len(in))
		}
	}
	h.post("/v1/responses", `{"model":"m1","conversation":"`+h.conversation(`[]`)+`"}`).wantError(t, 400, "missing_required_parameter", "input")
}

func TestPrepare(t *testing.T) {
	h := newHost(t)
	acme, ok := h.api.Tenants.ByKey("key-acme")
	if !ok {
		t.Fatal("there is no tenant acme")
	}
	for _, tc := range []struct {
		path, body, param string
	}{
		{"/v1/responses", `{"model":"m1","input":"hi","stream":true}`, "stream"},
		{"/v1/responses", `{"model":"m1","input":"hi","background":true}`, "background"},
		{"/v1/responses", `{"model":"m1"}`, "input"},
		{"/v1/responses", `{"model":"m1","input":[]}`, "input"},
		{"/v1/responses", `{`, ""},
		{"/v1/responses", `{"model":"m1","input":"hi","conversation":"` + h.conversation(`[]`) + `"}`, "conversation"},
		{"/v1/chat/completions", `{"model":"m1","messages":[],"stream":true}`, "stream"},
	} {
		_, _, err := h.api.Prepare(t.Context(), acme, tc.path, []byte(tc.body))
		var bad *response.BadRequest
		if !errors.As(err, &bad) || bad.Param != tc.param {
			t.Errorf("%s: got %v, want param %q", tc.body, err, tc.param)
		}
	}
	var unknown *api.Error
	if _, _, err := h.api.Prepare(t.Context(), acme, "/v1/embeddings", []byte(`{"model":"m9","input":"x"}`)); !errors.As(err, &unknown) || unknown.Status != 404 {
		t.Errorf("unknown model: got %v", err)
	}
	n, events, err := h.api.Prepare(t.Context(), acme, "/v1/responses", []byte(`{"model":"m1","input":"hi"}`))
	if err != nil || n.Tenant != "acme" || n.Model != "m1" || !n.Store || n.Worker != 0 || len(events) != 2 {
		t.Fatalf("got %+v, %d events, %v", n, len(events), err)
	}
	if !strings.Contains(string(events[0].Data), `"status":"queued"`) {
		t.Errorf("got %s, want a queued response", events[0].Data)
	}
	if _, events, err = h.api.Prepare(t.Context(), acme, "/v1/responses", []byte(`{"model":"m1","input":"hi","store":false}`)); err != nil || len(events) != 2 {
		t.Errorf("a line that is not to be stored: got %d events, %v; want 2, since its batch stores it", len(events), err)
	}
	n, events, err = h.api.Prepare(t.Context(), acme, "/v1/embeddings", []byte(`{"model":"m1","input":"hi"}`))
	if err != nil || n.Path != "/v1/embeddings" || string(n.Body) != `{"model":"m1","input":"hi"}` || events != nil {
		t.Errorf("got %+v, %v, %v", n, events, err)
	}
}
