package endtoend_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
)

// upload posts a file for batches and returns its id.
func (h *host) upload(content string) string {
	h.r.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "lines.jsonl")
	if err == nil {
		_, err = io.WriteString(part, content)
	}
	if err == nil {
		err = w.WriteField("purpose", "batch")
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		h.r.Fatal(err)
	}
	req, err := http.NewRequestWithContext(h.r.Context(), http.MethodPost, h.url+"/v1/files", &form)
	if err != nil {
		h.r.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.r.Fatal(err)
	}
	status, v := h.read(res)
	if status != http.StatusOK {
		h.r.Fatalf("upload: %d %v", status, v)
	}
	return v["id"].(string)
}

// content returns what a file holds, by custom id; "" names none.
func (h *host) content(file any) map[string]string {
	h.r.Helper()
	all := map[string]string{}
	if file == nil {
		return all
	}
	res, err := http.Get(h.url + "/v1/files/" + file.(string) + "/content")
	if err != nil {
		h.r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		h.r.Fatalf("file %s: %d %v", file, res.StatusCode, err)
	}
	for line := range strings.Lines(string(text)) {
		var l struct {
			CustomID string `json:"custom_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			h.r.Fatalf("%s: %v", line, err)
		}
		if all[l.CustomID] != "" {
			h.r.Errorf("%s is in file %s twice", l.CustomID, file)
		}
		all[l.CustomID] = line
	}
	return all
}

// batchLines are lines of chat completions and, of every tenth, a text that the
// upstream refuses.
func batchLines(n int) string {
	var b strings.Builder
	for i := range n {
		kind := "fine"
		if i%10 == 3 {
			kind = "refuse"
		}
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"%s c%d."}]}}`+"\n", i, kind, i)
	}
	return b.String()
}

var customID = regexp.MustCompile(`c\d+\.`)

// TestKillsDuringBatch kills hosts while they check a batch's lines, while they
// run and at its end: each line is in one of the files once, and the upstream was
// called again only for what ran when a host died.
func TestKillsDuringBatch(t *testing.T) {
	const lines, slots = 300, 8
	testdb.Each(t, func(t *testing.T, url string) {
		var calls recorder
		reached := make(chan int, 10*lines)
		r := newRig(t, url, calls.script(func(n int, req demo.Request) demo.Turn {
			reached <- n
			turn := demo.Turn{Text: "answer to " + customID.FindString(string(req.Body)), Delay: 20 * time.Millisecond}
			if bytes.Contains(req.Body, []byte("refuse")) {
				turn.Status, turn.ErrorBody = http.StatusBadRequest, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"no"}}`
			}
			return turn
		}))
		at := site{slots: slots}
		shared := strings.HasPrefix(url, "postgres")
		h := r.startAt(at)
		spare := h
		if shared {
			spare = r.startAt(at)
		}
		_, b := h.post("/v1/batches", map[string]any{
			"input_file_id": h.upload(batchLines(lines)), "endpoint": "/v1/chat/completions", "completion_window": "24h",
		})
		id, _ := b["id"].(string)
		if id == "" {
			t.Fatalf("batch: %v", b)
		}
		// The host that made the batch has just begun to check its lines, or to load.
		var deaths []death
		die := func() {
			began := time.Now()
			h.kill()
			deaths = append(deaths, death{began, time.Now()})
			if shared {
				h, spare = spare, r.startAt(at)
				return
			}
			h = r.startAt(at)
		}
		die()
		for _, most := range []int{10, 150} {
			for n := range reached {
				if n >= most {
					break
				}
			}
			die()
		}
		var v map[string]any
		r.within(2*time.Minute, "the batch ends", func() bool {
			_, v = h.get("/v1/batches/" + id)
			return v["status"] == "completed" || v["status"] == "failed" || v["status"] == "expired"
		})
		checkBatch(t, h, v, lines)
		checkRepeats(t, calls.all(), lines, slots, deaths, shared)
	})
}

// checkBatch checks that each line is in the file that it belongs to, and that
// the counts say so.
func checkBatch(t *testing.T, h *host, v map[string]any, lines int) {
	t.Helper()
	output, errs := h.content(v["output_file_id"]), h.content(v["error_file_id"])
	counts, _ := v["request_counts"].(map[string]any)
	if v["status"] != "completed" || counts["total"] != float64(lines) ||
		counts["completed"] != float64(len(output)) || counts["failed"] != float64(len(errs)) {
		t.Errorf("batch %v with %d lines of output and %d of errors", v, len(output), len(errs))
	}
	if used, _ := v["usage"].(map[string]any); used["total_tokens"] == nil || used["total_tokens"] == 0.0 {
		t.Errorf("usage %v", v["usage"])
	}
	for i := range lines {
		id := fmt.Sprintf("c%d", i)
		in, other, want := output, errs, "answer to "+id+"."
		if i%10 == 3 {
			in, other, want = errs, output, `"status_code":400`
		}
		if !strings.Contains(in[id], want) || other[id] != "" {
			t.Errorf("%s: in its file %q, in the other %q; want %q in its own only", id, in[id], other[id], want)
		}
	}
	if n := len(output) + len(errs); n != lines {
		t.Errorf("%d lines in both files; want %d", n, lines)
	}
}

// death is when a host was killed: some time between the two.
type death struct{ after, before time.Time }

// checkRepeats checks that the upstream got one call for each line's request, and
// another only when a host died during the one before or just after it.
func checkRepeats(t *testing.T, all []call, lines, slots int, deaths []death, shared bool) {
	t.Helper()
	const late = 2 * time.Second // an answer that came may not be stored yet
	by := map[string][]call{}
	for _, c := range all {
		by[c.request()] = append(by[c.request()], c)
	}
	if len(by) != lines {
		t.Errorf("calls for %d requests; want %d: a line was made a request twice, or never", len(by), lines)
	}
	hosts := 1
	if shared {
		hosts = 2
	}
	if most := lines + len(deaths)*slots*hosts; len(all) > most {
		t.Errorf("%d calls; want at most %d", len(all), most)
	}
	for id, calls := range by {
		for _, c := range calls[:len(calls)-1] {
			died := false
			for _, d := range deaths {
				died = died || !d.before.Before(c.began) && (c.ended.IsZero() || d.after.Before(c.ended.Add(late)))
			}
			if !died {
				t.Errorf("request %s: a call from %s to %s was repeated without a host's death", id, c.began, c.ended)
			}
		}
	}
}
