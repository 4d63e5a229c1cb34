package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// readFrames reads a stream to its end.
func readFrames(t *testing.T, r io.Reader) []frame {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return frames(t, b)
}

// checkStream holds a stream that ends with an event of this type, or with none
// where last is "", against the grammar of events. before is what its client had
// of the response already.
func checkStream(t *testing.T, list []frame, last string, before ...frame) {
	t.Helper()
	n := len(list) - 1
	if n < 0 || list[n] != (frame{"", "[DONE]"}) {
		t.Fatalf("got %v, want [DONE] at the end", list)
	}
	events := slices.Concat(before, list[:n])
	v := response.Validator{Canceled: last == ""}
	for _, f := range events {
		if err := v.Event([]byte(f.data)); err != nil {
			t.Fatalf("%v: %s", err, f.data)
		}
		if !strings.HasPrefix(f.data, `{"type":"`+f.kind+`"`) {
			t.Errorf("event %q: its line says %q", f.data, f.kind)
		}
	}
	if err := v.End(); err != nil {
		t.Error(err)
	}
	switch got := events[len(events)-1].kind; {
	case last != "" && got != last:
		t.Errorf("got last event %q, want %q", got, last)
	case last == "" && terminalKind(got):
		t.Errorf("got last event %q, want none that ends the response", got)
	}
}

func TestStream(t *testing.T) {
	for _, body := range []string{
		`{"model":"m1","input":"hi","stream":true}`,
		`{"model":"m1","input":"hi","stream":true,"store":false}`,
	} {
		h := newHost(t)
		a := h.post("/v1/responses", body)
		if got := a.header.Get("Content-Type"); a.status != 200 || got != "text/event-stream" {
			t.Fatalf("got %d %s, want an event stream", a.status, got)
		}
		list := frames(t, a.body)
		checkStream(t, list, "response.completed")
		if list[0].kind != "response.created" {
			t.Errorf("got first event %q, want response.created", list[0].kind)
		}
		if n := len(list); n < 10 {
			t.Errorf("got %d frames, want the whole grammar", n)
		}
	}
}

// chunks records what each Write and Flush brings.
type chunks struct {
	http.ResponseWriter
	writes  *[]string
	flushes *int
}

func (c chunks) Write(b []byte) (int, error) {
	*c.writes = append(*c.writes, string(b))
	return c.ResponseWriter.Write(b)
}

func (c chunks) Flush() {
	*c.flushes++
	c.ResponseWriter.(http.Flusher).Flush()
}

// One event is one Write and one Flush: there are clients that lose an event
// whose blank line comes later.
func TestOneWritePerEvent(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	var writes []string
	var flushes int
	done := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		h.api.Handler().ServeHTTP(chunks{w, &writes, &flushes}, r)
	})}
	base := serve(t, srv)
	req, err := http.NewRequest("GET", base+"/v1/responses/"+o.ID+"?stream=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-acme")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	list := readFrames(t, res.Body)
	wait(t, done, "end of the handler")
	if len(writes) != len(list) || flushes != len(list)+1 {
		t.Errorf("got %d writes and %d flushes, want %d and one more for the head", len(writes), flushes, len(list))
	}
	for i, f := range list {
		want := "event: " + f.kind + "\ndata: " + f.data + "\n\n"
		if f.kind == "" {
			want = "data: [DONE]\n\n"
		}
		if i < len(writes) && writes[i] != want {
			t.Errorf("write %d: got %q, want %q", i, writes[i], want)
		}
	}
}

func TestResumeAtEveryEvent(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	path := "/v1/responses/" + o.ID
	whole := frames(t, h.get(path+"?stream=true").body)
	checkStream(t, whole, "response.completed")
	for after := -1; after < len(whole)-1; after++ {
		want := whole[after+1:]
		for _, a := range []answer{
			h.get(fmt.Sprintf("%s?stream=true&starting_after=%d", path, after)),
			h.do("GET", fmt.Sprintf("%s?starting_after=%d", path, after), `{"stream":true}`),
			h.do("GET", path, fmt.Sprintf(`{"stream":true,"starting_after":%d}`, after)),
		} {
			got := frames(t, a.body)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("after %d: got %d frames from %.80q, want %d", after, len(got), got[0].data, len(want))
			}
		}
	}
	if got := frames(t, h.get(path+"?stream=true&starting_after=999").body); len(got) != 1 {
		t.Errorf("after the end: got %v, want [DONE] alone", got)
	}
	if got := h.get(path + "?stream=false").object(t); got.Object != "response" {
		t.Errorf("stream=false: got %+v, want the object", got)
	}
	for _, q := range []string{"?stream=maybe", "?stream=true&starting_after=x", "?stream=true&starting_after=-2"} {
		if a := h.get(path + q); a.status != 400 {
			t.Errorf("%s: got %d, want 400", q, a.status)
		}
	}
	h.do("GET", path, `{"stream":"yes"}`).wantError(t, 400, "invalid_type", "")
	h.do("GET", path, `{"stream":`).wantError(t, 400, "invalid_json", "")
	h.do("GET", path, `{}`+strings.Repeat(" ", 1<<16)).wantError(t, 413, "payload_too_large", "")
}

// A background stream that breaks does not end its run, and can be resumed.
func TestBackgroundStream(t *testing.T) {
	h := newHost(t)
	goOn := make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.delta("Hel")
		<-goOn
		r.complete()
	}
	ctx, cancel := context.WithCancel(t.Context())
	res := h.open(ctx, "POST", "/v1/responses", `{"model":"m1","input":"hi","background":true,"stream":true}`)
	run := h.runner.start(wait(t, h.runner.queued, "enqueued request"))
	rd := bufio.NewReader(res.Body)
	var seen []frame
	for len(seen) < 4 {
		seen = append(seen, nextFrame(t, rd))
	}
	if seen[0].kind != "response.created" || seen[1].kind != "response.queued" || seen[2].kind != "response.in_progress" {
		t.Errorf("got %v, want created, queued, in_progress", seen)
	}
	cancel()
	res.Body.Close()
	h.awaitLog(`"status":499`)
	close(goOn)
	wait(t, run.done, "end")
	if len(h.store.canceled) != 0 {
		t.Error("the run was canceled with its stream")
	}
	id := "resp_" + run.ID.String()
	list := frames(t, h.get("/v1/responses/"+id+"?stream=true&starting_after=3").body)
	checkStream(t, list, "response.completed", seen...)
}

// nextFrame reads one event.
func nextFrame(t *testing.T, r *bufio.Reader) frame {
	t.Helper()
	var part strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("stream ended: %v", err)
		}
		if line == "\n" {
			break
		}
		part.WriteString(line)
	}
	f, err := parseFrame(strings.TrimSuffix(part.String(), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHeartbeat(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.Heartbeat = 300 * time.Millisecond })
	goOn := make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.delta("Hel")
		<-goOn
		r.complete()
	}
	// check reads two heartbeats and returns all events up to them.
	check := func(res *http.Response, before ...frame) []frame {
		t.Helper()
		var v response.Validator // a heartbeat that is not true is an error
		for _, f := range before {
			if err := v.Event([]byte(f.data)); err != nil {
				t.Fatal(err)
			}
		}
		rd, seen, last := bufio.NewReader(res.Body), before, len(before)
		for v.Heartbeats < 2 {
			f := nextFrame(t, rd)
			beats := v.Heartbeats
			if err := v.Event([]byte(f.data)); err != nil {
				t.Fatal(err)
			}
			if v.Heartbeats == beats {
				seen, last = append(seen, f), last+1
			} else if f.kind != "response.in_progress" || f.seq(t) != int64(last-1) {
				t.Errorf("got heartbeat %s, want one with sequence_number %d", f.data, last-1)
			}
		}
		return seen
	}
	res := h.open(t.Context(), "POST", "/v1/responses", `{"model":"m1","input":"hi","stream":true}`)
	defer res.Body.Close()
	seen := check(res)
	var id queue.ID
	for id = range h.runner.runs {
		break
	}
	for _, after := range []int{3, 4} {
		resumed := h.open(t.Context(), "GET", fmt.Sprintf("/v1/responses/resp_%s?stream=true&starting_after=%d", id, after), "")
		check(resumed, slices.Clone(seen[:after+1])...)
		resumed.Body.Close()
	}
	close(goOn)
	if b, err := io.ReadAll(res.Body); err != nil || !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
		t.Errorf("got %q, %v, want the rest of the stream", b, err)
	}
	if n := len(frames(t, h.get("/v1/responses/resp_"+id.String()+"?stream=true").body)); n > 12 {
		t.Errorf("got %d frames from the log, want no heartbeat in it", n)
	}
}

// A request that the sweeper ended has no terminal event in its log.
func TestTerminalEventIsMadeUp(t *testing.T) {
	tests := []struct {
		state queue.State
		class queue.Class
		want  string // "": none
	}{
		{queue.Failed, queue.WorkerLost, "response.failed"},
		{queue.Expired, queue.ClassDeadline, "response.failed"},
		{queue.Canceled, queue.ClassCanceled, ""},
	}
	for _, tt := range tests {
		t.Run(tt.state.String(), func(t *testing.T) {
			h := newHost(t)
			begun := make(chan struct{})
			h.runner.script = func(r *fakeRun) {
				r.begin()
				r.delta("Hel")
				r.producer.Close(false)
				close(begun)
			}
			o := h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
			n := wait(t, h.runner.queued, "enqueued request")
			h.runner.start(n)
			wait(t, begun, "run")
			res := h.open(t.Context(), "GET", "/v1/responses/"+o.ID+"?stream=true", "")
			defer res.Body.Close()
			h.store.change(n.ID, func(r *store.Record) { r.State, r.Class, r.Finished = tt.state, tt.class, time.Now() })
			list := readFrames(t, res.Body)
			status := map[string]string{"": "cancelled", "response.failed": "failed"}[tt.want]
			checkStream(t, list, tt.want)
			a := h.get("/v1/responses/" + o.ID)
			if got := a.object(t); got.Status != status || got.text() != "Hel" {
				t.Errorf("GET: got %+v, want %s with the output so far", got, status)
			}
			if !strings.Contains(string(a.body), `"usage":null`) {
				t.Errorf("GET: got %s, want null for a usage that nobody knows", a.body)
			}
			if tt.want == "" {
				return
			}
			end := list[len(list)-2].seq(t)
			resumed := frames(t, h.get(fmt.Sprintf("/v1/responses/%s?stream=true&starting_after=%d", o.ID, end-1)).body)
			checkStream(t, resumed, tt.want, list[:end]...)
			if again := frames(t, h.get(fmt.Sprintf("/v1/responses/%s?stream=true&starting_after=%d", o.ID, end)).body); len(again) != 1 {
				t.Errorf("after the end: got %v, want [DONE] alone", again)
			}
		})
	}
}

// A failure after the first event ends the stream with response.failed, also
// where no log tells of it.
func TestUnstoredRunIsLost(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.delta("Hel")
		r.producer.Close(false)
		r.err = fmt.Errorf("claimer: %w", queue.ErrLeaseLost)
	}
	list := frames(t, h.post("/v1/responses", `{"model":"m1","input":"hi","stream":true,"store":false}`).body)
	checkStream(t, list, "response.failed")
}

// A run that failed before it said anything is answered with its own status.
func TestUnstoredStreamFailsEarly(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) { r.end(queue.Outcome{To: queue.Failed, Class: queue.RateLimited}) }
	h.post("/v1/responses", `{"model":"m1","input":"hi","stream":true,"store":false}`).
		wantError(t, 429, "rate_limit_exceeded", "")
}

// A failed response is the stored object, with status 200 on GET.
func TestFailedResponseIsRetrieved(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.emit(r.stream.Finish(response.End{Status: "failed", Failure: &response.Failure{Code: "server_error", Message: "It failed."}}))
		r.end(queue.Outcome{To: queue.Failed, Class: queue.UpstreamNetwork, Status: 502, Body: r.stream.Response()})
	}
	h.post("/v1/responses", `{"model":"m1","input":"hi"}`).wantError(t, 502, "server_error", "")
	for id := range h.runner.runs {
		a := h.get("/v1/responses/resp_" + id.String())
		if o := a.object(t); a.status != 200 || o.Status != "failed" || o.Error == nil {
			t.Errorf("got %d %s, want the failed object", a.status, a.body)
		}
	}
	list := frames(t, h.post("/v1/responses", `{"model":"m1","input":"hi","stream":true}`).body)
	checkStream(t, list, "response.failed")
}
