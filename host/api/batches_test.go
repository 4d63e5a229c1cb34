package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/batch"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// batchAnswer is what tests look at of a batch.
type batchAnswer struct {
	ID, Object, Endpoint, Status string
	Input                        string                                 `json:"input_file_id"`
	Window                       string                                 `json:"completion_window"`
	Output                       *string                                `json:"output_file_id"`
	ErrorFile                    *string                                `json:"error_file_id"`
	RetryOf                      string                                 `json:"retry_of"`
	Created                      int64                                  `json:"created_at"`
	Expires                      int64                                  `json:"expires_at"`
	Cancelling                   *int64                                 `json:"cancelling_at"`
	Counts                       struct{ Total, Completed, Failed int } `json:"request_counts"`
	Metadata                     map[string]string
	Errors                       *struct {
		Object string
		Data   []batch.Fault
	}
}

func (a answer) batch(t *testing.T) (b batchAnswer) {
	t.Helper()
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	a.decode(t, &b)
	return b
}

// maker is the API as a runner of batches sees it.
type maker struct{ *api.API }

func (m maker) MayUse(_, model string) bool { return m.MayAsk(tenant.Tenant{Name: "acme"}, model) }

func (m maker) Prepare(ctx context.Context, name, path string, body []byte) (queue.New, []response.Event, error) {
	return m.Line(ctx, tenant.Tenant{Name: name}, path, body)
}

// batchLine is a line of an input.
func batchLine(id, path, body string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":%q,"body":%s}`+"\n", id, path, body)
}

// run goes on with batches until the test ends.
func (h *host) run(s *store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := batch.New(s, maker{h.api}, batch.Outputs{Store: s, Failure: api.Failure}, batch.Options{Poll: time.Millisecond})
	go func() { done <- r.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

// awaitBatch polls a batch until it has a status.
func (h *host) awaitBatch(id, status string) batchAnswer {
	h.t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		if b := h.get("/v1/batches/" + id).batch(h.t); b.Status == status {
			return b
		}
	}
	h.t.Fatalf("batch: got %s, want it %s", h.get("/v1/batches/"+id).body, status)
	return batchAnswer{}
}

func (h *host) newBatch(lines, endpoint, more string) batchAnswer {
	h.t.Helper()
	in := h.upload("file", lines, "purpose", "batch").object(h.t).ID
	return h.post("/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":%q,"completion_window":"24h"%s}`, in, endpoint, more)).batch(h.t)
}

func TestBatches(t *testing.T) {
	var woken atomic.Int32
	h, s := withFiles(t, func(o *api.Options) { o.BatchAdded = func() { woken.Add(1) } })
	lines := batchLine("a", "/v1/responses", `{"model":"m1","input":"hi","store":false}`) +
		batchLine("b", "/v1/responses", `{"model":"m1","input":7}`) +
		batchLine("c", "/v1/responses", `{"model":"m1","input":"hi","background":true}`)
	b := h.newBatch(lines, "/v1/responses", `,"metadata":{"k":"v"},"output_expires_after":{"anchor":"created_at","seconds":3600}`)
	if b.Object != "batch" || b.Status != "validating" || b.Endpoint != "/v1/responses" || b.Window != "24h" || b.Metadata["k"] != "v" ||
		b.Expires != b.Created+24*3600 || b.Output != nil || !strings.HasPrefix(b.ID, "batch_") {
		t.Fatalf("got %+v", b)
	}
	if n := woken.Load(); n != 1 {
		t.Errorf("told %d times of a new batch", n)
	}
	h.run(s)
	h.awaitBatch(b.ID, "in_progress")
	for b.Counts.Failed < 2 {
		b = h.awaitBatch(b.ID, "in_progress")
	}
	if b.Output == nil || b.ErrorFile == nil || b.Counts.Total != 3 || b.Counts.Completed != 0 {
		t.Fatalf("got %+v", b)
	}
	if a := h.get("/v1/files/" + *b.Output + "/content"); a.status != 200 || len(a.body) != 0 {
		t.Errorf("output: got %d %s", a.status, a.body)
	}
	h.do("DELETE", "/v1/files/"+*b.Output, "").wantError(t, 409, "file_in_use", "")
	errs := string(h.get("/v1/files/" + *b.ErrorFile + "/content").body)
	var got []string
	for l := range strings.Lines(errs) {
		var o struct {
			CustomID string `json:"custom_id"`
			Response struct {
				Status int `json:"status_code"`
				Body   struct{ Error struct{ Param, Code string } }
			}
		}
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(o.CustomID, o.Response.Status, o.Response.Body.Error.Param))
	}
	if fmt.Sprint(got) != "[b400input c400background]" {
		t.Errorf("errors: got %s", errs)
	}
	h.post("/v1/batches/"+b.ID+"/retry", "").wantError(t, 409, "batch_in_progress", "")
	if c := h.post("/v1/batches/"+b.ID+"/cancel", "").batch(t); c.Status != "cancelling" || c.Cancelling == nil {
		t.Errorf("cancel: got %+v", c)
	}
	if woken.Load() < 2 {
		t.Error("not told of a cancel")
	}
	b = h.awaitBatch(b.ID, "cancelled")
	if b.Counts.Total != 3 || b.Counts.Completed != 0 || b.Counts.Failed != 3 || b.Output != nil || b.ErrorFile == nil {
		t.Errorf("cancelled: got %+v", b)
	}
	if again := h.post("/v1/batches/"+b.ID+"/cancel", "").batch(t); again.Status != "cancelled" {
		t.Errorf("cancel again: got %+v", again)
	}
	if errs := string(h.get("/v1/files/" + *b.ErrorFile + "/content").body); !strings.Contains(errs, `"code":"batch_cancelled"`) {
		t.Errorf("errors: got %s", errs)
	}
	if r := h.post("/v1/batches/"+b.ID+"/retry", "").batch(t); r.RetryOf != b.ID || r.Input != b.Input || r.Metadata["k"] != "v" {
		t.Errorf("retry: got %+v", r)
	}
	h.do("DELETE", "/v1/files/"+b.Input, "").object(t)
	h.post("/v1/batches/"+b.ID+"/retry", "").wantError(t, 400, "file_not_found", "id")
}

func TestBatchOfBadLines(t *testing.T) {
	h, s := withFiles(t)
	h.run(s)
	b := h.newBatch("nope\n"+batchLine("x", "/v1/embeddings", `{"model":"m9"}`), "/v1/embeddings", "")
	b = h.awaitBatch(b.ID, "failed")
	if b.Errors == nil || b.Errors.Object != "list" || len(b.Errors.Data) != 2 || *b.Errors.Data[0].Line != 1 || b.Errors.Data[1].Code != "model_not_found" {
		t.Errorf("got %+v", b.Errors)
	}
	h.post("/v1/batches/"+b.ID+"/retry", "").wantError(t, 400, "nothing_to_retry", "id")
}

func TestBadBatches(t *testing.T) {
	h, _ := withFiles(t)
	in := h.upload("file", "x", "purpose", "batch").object(t).ID
	other := h.upload("file", "x", "purpose", "vision").object(t).ID
	good := `{"input_file_id":"` + in + `","endpoint":"/v1/responses","completion_window":"24h","metadata":{"a":"b"}}`
	for name, c := range map[string]struct{ old, new, code, param string }{
		"no input":        {"input_file_id", "x", "missing_required_parameter", "input_file_id"},
		"unknown input":   {in, "file-00000000000000000000000000000000", "file_not_found", "input_file_id"},
		"malformed input": {in, "x", "file_not_found", "input_file_id"},
		"other purpose":   {in, other, "invalid_value", "input_file_id"},
		"no endpoint":     {"/v1/responses", "", "missing_required_parameter", "endpoint"},
		"other endpoint":  {"/v1/responses", "/v1/models", "invalid_value", "endpoint"},
		"window":          {"24h", "1s", "invalid_value", "completion_window"},
		"long window":     {"24h", "2400h", "invalid_value", "completion_window"},
		"no window":       {"24h", "soon", "invalid_value", "completion_window"},
		"metadata":        {`"b"`, "1", "invalid_type", "metadata"},
		"long metadata":   {`"b"`, `"` + strings.Repeat("x", 513) + `"`, "invalid_value", "metadata"},
		"keep":            {`"metadata":{"a":"b"}`, `"output_expires_after":{"anchor":"created_at","seconds":1}`, "invalid_value", "output_expires_after"},
	} {
		t.Run(name, func(t *testing.T) {
			h.post("/v1/batches", strings.Replace(good, c.old, c.new, 1)).wantError(t, 400, c.code, c.param)
		})
	}
	b := h.post("/v1/batches", good).batch(t)
	if list := h.get("/v1/batches?limit=1").object(t); len(list.Data) != 1 || list.Data[0].ID != b.ID {
		t.Errorf("list: got %+v", list)
	}
	for _, q := range []string{"limit=101", "limit=x", "after=batch_1"} {
		param, _, _ := strings.Cut(q, "=")
		h.get("/v1/batches?"+q).wantError(t, 400, "invalid_value", param)
	}
	h.key = "key-beta"
	h.get("/v1/batches/"+b.ID).wantError(t, 404, "not_found", "id")
	h.post("/v1/batches/"+b.ID+"/cancel", "").wantError(t, 404, "not_found", "id")
	h.post("/v1/batches/"+b.ID+"/retry", "").wantError(t, 404, "not_found", "id")
	h.post("/v1/batches", good).wantError(t, 400, "file_not_found", "input_file_id")
}

// TestFailure: a line's error is what a client is told who waits for the same.
func TestFailure(t *testing.T) {
	for _, c := range []struct {
		path, code   string
		stored, want int
		wantCode     string
	}{
		{"/v1/chat/completions", "", 400, 400, "upstream_rejected"},
		{"/v1/chat/completions", "", 401, 502, "server_error"}, // the host's own account
		{"/v1/embeddings", "", 429, 429, "rate_limit_exceeded"},
		{"/v1/embeddings", "rejected_by_policy", 403, 403, "rejected_by_policy"},
		{"/v1/responses", "", 502, 502, "server_error"},
		{"/v1/responses", "not_you", 403, 403, "not_you"},
	} {
		status, body := api.Failure(store.Record{
			Path: c.path, State: queue.Failed, Class: queue.UpstreamStatus, Code: c.code, Result: &store.Result{Status: c.stored},
		})
		var e struct{ Error struct{ Code string } }
		if err := json.Unmarshal(body, &e); err != nil || status != c.want || e.Error.Code != c.wantCode {
			t.Errorf("%+v: got %d %s, %v", c, status, body, err)
		}
	}
}
