package processor_test

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
)

// rig is the default path on a real store, hub, claimer, upstream client and
// the built-in policies.
type rig struct {
	*testing.T
	store    *store.Store
	hub      *stream.Hub
	claimer  *claimer.Claimer
	upstream *demo.Server
}

func newRig(t *testing.T, script demo.Script, o processor.Options) *rig {
	t.Helper()
	srv, err := demo.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	up, err := upstream.New(upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: srv.URL()}},
		Models:    []upstream.Model{{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := openRig(t, &loop.Caller{Policy: policy.New(nil), Upstream: up}, o, claimer.Options{})
	r.upstream = srv
	return r
}

// openRig is a rig with own stages.
func openRig(t *testing.T, caller *loop.Caller, o processor.Options, c claimer.Options) *rig {
	t.Helper()
	driver, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "default.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, store: store.New(driver, store.Options{})}
	r.hub = stream.NewHub(r.store, stream.Options{})
	c.Models, c.Drain = claimer.Fixed("m"), time.Millisecond
	if c.Poll == 0 {
		c.Poll = 50 * time.Millisecond
	}
	r.claimer = claimer.New(r.store, processor.Processor{
		Default:   processor.NewDefault(caller, r.hub, o),
		Responses: loop.New(r.store, caller, noTools{}, r.hub, loop.Options{MaxFailures: o.MaxFailures, InPlace: o.InPlace}),
	}, c)
	base, end := context.WithCancel(context.Background())
	work, stop := context.WithCancel(base)
	var parts, worker sync.WaitGroup
	parts.Go(func() { r.check(r.store.Run(base)) })
	parts.Go(func() { r.check(r.hub.Run(base)) })
	worker.Go(func() { r.check(r.claimer.Run(work, base)) })
	t.Cleanup(func() {
		stop()
		worker.Wait()
		end()
		parts.Wait()
		r.check(driver.Close())
	})
	<-r.claimer.Ready()
	return r
}

func (r *rig) check(err error) {
	if err != nil {
		r.Error(err)
	}
}

func chat(stream bool, extra string) queue.New {
	body := `{"model":"m","messages":[{"role":"user","content":"hello"}]` + extra
	if stream {
		body += `,"stream":true`
	}
	return queue.New{
		ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/chat/completions", Stream: stream, Body: []byte(body + "}"),
	}
}

// run runs a realtime request; chunks are what a streaming client is shown.
func (r *rig) run(n queue.New) (o queue.Outcome, chunks []string) {
	r.Helper()
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	run, err := r.claimer.Submit(r.Context(), store.Write{Insert: &n})
	if err != nil {
		r.Fatal(err)
	}
	if o, err = run.Wait(r.Context()); err != nil {
		r.Fatal(err)
	}
	for {
		events, err := l.Next(r.Context())
		for _, e := range events {
			if e.Seq != int64(len(chunks)) {
				r.Errorf("chunk %d has number %d", len(chunks), e.Seq)
			}
			chunks = append(chunks, string(e.Data))
		}
		if err != nil {
			return o, chunks
		}
	}
}

func (r *rig) record(n queue.New) store.Record {
	r.Helper()
	rec, err := r.store.Get(r.Context(), "", n.ID, store.Parts{Body: true, Result: true, Decisions: true, Usage: true})
	if err != nil {
		r.Fatal(err)
	}
	return rec
}

// text reads the content of a completion, or of chunks put together.
func text(t *testing.T, docs ...string) string {
	t.Helper()
	var out strings.Builder
	for _, doc := range docs {
		var v struct {
			Choices []struct {
				Message, Delta struct{ Content string }
			}
		}
		if err := json.Unmarshal([]byte(doc), &v); err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		for _, c := range v.Choices {
			out.WriteString(c.Message.Content + c.Delta.Content)
		}
	}
	return out.String()
}

func TestChat(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "hello there"} }, processor.Options{})
	n := chat(false, "")
	o, chunks := r.run(n)
	if o.To != queue.Completed || o.Status != 200 || text(t, string(o.Body)) != "hello there" || len(chunks) != 0 {
		t.Errorf("%s %d %q, %d chunks", o.To, o.Status, o.Body, len(chunks))
	}
	rec := r.record(n)
	if rec.Body != nil || rec.Result != nil {
		t.Error("a request that is not stored left its texts behind")
	}
	if len(rec.Usage) != 1 || rec.Usage[0].Tokens.Output == 0 || len(rec.Decisions) != 1 {
		t.Errorf("usage %+v, %d decisions; want metered and one decision", rec.Usage, len(rec.Decisions))
	}
}

func TestStoredChatKeepsTheFoldedAnswer(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "hello there", ChunkRunes: 2} }, processor.Options{})
	n := chat(true, "")
	n.Store = true
	r.run(n)
	rec := r.record(n)
	if rec.Result == nil || text(t, string(rec.Result.Body)) != "hello there" || strings.Contains(string(rec.Result.Body), "chunk") {
		t.Errorf("stored %v; want one whole chat.completion", rec.Result)
	}
}

func TestStreamedChat(t *testing.T) {
	usage := func(chunks []string) bool { return strings.Contains(chunks[len(chunks)-1], `"usage":{`) }
	for _, tt := range []struct {
		name, extra string
		usage       bool
	}{
		{"usage not asked for", "", false},
		{"usage asked for", `,"stream_options":{"include_usage":true}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "hello there", ChunkRunes: 2} }, processor.Options{})
			n := chat(true, tt.extra)
			o, chunks := r.run(n)
			if o.To != queue.Completed || text(t, chunks...) != "hello there" {
				t.Errorf("%s, chunks %q", o.To, chunks)
			}
			if usage(chunks) != tt.usage {
				t.Errorf("last chunk %s; usage wanted: %v", chunks[len(chunks)-1], tt.usage)
			}
			if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens.Output == 0 {
				t.Errorf("usage %+v; want it metered either way", rec.Usage)
			}
		})
	}
}

// TestAnswerOfTheOtherKind checks that the answer's content type decides how
// it is read, not the request's flag.
//
// B31: an answer of the other kind is neither lost nor empty.
func TestAnswerOfTheOtherKind(t *testing.T) {
	const whole = `{"id":"x","object":"chat.completion","created":1,"model":"real","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	const parts = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	t.Run("JSON for a stream", func(t *testing.T) {
		r := newRig(t, func(int, demo.Request) demo.Turn {
			return demo.Turn{Raw: []byte(whole), ContentType: "application/json"}
		}, processor.Options{})
		o, chunks := r.run(chat(true, ""))
		if o.To != queue.Completed || len(chunks) != 1 || text(t, chunks...) != "hello" || !strings.Contains(chunks[0], "chat.completion.chunk") {
			t.Errorf("%s, chunks %q; want one chunk", o.To, chunks)
		}
	})
	t.Run("a stream for JSON", func(t *testing.T) {
		r := newRig(t, func(int, demo.Request) demo.Turn {
			return demo.Turn{Raw: []byte(parts), ContentType: "text/event-stream"}
		}, processor.Options{})
		o, chunks := r.run(chat(false, ""))
		if o.To != queue.Completed || text(t, string(o.Body)) != "hello" || len(chunks) != 0 {
			t.Errorf("%s %q, %d chunks; want one body", o.To, o.Body, len(chunks))
		}
	})
}

func TestRetry(t *testing.T) {
	r := newRig(t, func(n int, _ demo.Request) demo.Turn {
		if n == 0 {
			return demo.Turn{Status: http.StatusServiceUnavailable}
		}
		return demo.Turn{Text: "second"}
	}, processor.Options{})
	n := chat(false, "")
	o, _ := r.run(n)
	if o.To != queue.Completed || text(t, string(o.Body)) != "second" {
		t.Errorf("%s %q; want the second try", o.To, o.Body)
	}
	if rec := r.record(n); rec.Failures != 1 || len(rec.Decisions) != 3 {
		t.Errorf("failures %d, %d decisions; want 1 and route, retry, route", rec.Failures, len(rec.Decisions))
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		name   string
		turn   demo.Turn
		class  queue.Class
		status int
	}{
		{"bad request", demo.Turn{Status: 400, ErrorBody: `{"error":{"message":"secret"}}`}, queue.UpstreamStatus, 400},
		{"error inside a 200", demo.Turn{ErrorBody: `{"error":{"message":"secret","code":400}}`}, queue.UpstreamStatus, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(int, demo.Request) demo.Turn { return tt.turn }, processor.Options{MaxFailures: 1})
			o, _ := r.run(chat(false, ""))
			if o.To != queue.Failed || o.Class != tt.class || o.Status != tt.status {
				t.Errorf("%s %s %d; want failed %s %d", o.To, o.Class, o.Status, tt.class, tt.status)
			}
			if strings.Contains(string(o.Body)+o.Message, "secret") {
				t.Error("the provider's text went through")
			}
		})
	}
}

func TestCutStreamIsNotTriedAgain(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn {
		return demo.Turn{Text: "words that never end", ChunkRunes: 3, CutAfter: 3}
	}, processor.Options{})
	o, chunks := r.run(chat(true, ""))
	if o.To != queue.Failed || len(chunks) == 0 || len(r.upstream.Requests()) != 1 {
		t.Errorf("%s after %d calls, %d chunks; want failed after one", o.To, len(r.upstream.Requests()), len(chunks))
	}
}

func TestEmbeddings(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{} }, processor.Options{})
	n := queue.New{
		ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/embeddings", Body: []byte(`{"model":"m","input":"hello"}`),
	}
	o, _ := r.run(n)
	if o.To != queue.Completed || !strings.Contains(string(o.Body), `"embedding"`) {
		t.Errorf("%s %.100s", o.To, o.Body)
	}
	if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens.Input == 0 {
		t.Errorf("usage %+v; want input tokens", rec.Usage)
	}
}

func TestStopped(t *testing.T) {
	tests := []struct {
		cause error
		state queue.State
		class queue.Class
	}{
		{queue.ErrShutdown, queue.Failed, queue.WorkerLost},
		{queue.ErrDeadline, queue.Failed, queue.ClassDeadline},
		{queue.ErrClientGone, queue.Canceled, queue.ClassCanceled},
	}
	for _, tt := range tests {
		t.Run(string(tt.class), func(t *testing.T) {
			began, gate := make(chan struct{}, 1), make(chan struct{})
			defer close(gate)
			r := newRig(t, func(int, demo.Request) demo.Turn {
				began <- struct{}{}
				return demo.Turn{Gate: gate}
			}, processor.Options{})
			n := chat(false, "")
			run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n})
			if err != nil {
				t.Fatal(err)
			}
			<-began
			if tt.state == queue.Canceled {
				if _, _, err := r.store.Cancel(t.Context(), "t", n.ID, ""); err != nil {
					t.Fatal(err)
				}
			}
			r.claimer.Stop(n.ID, tt.cause)
			if o, err := run.Wait(t.Context()); err != nil || o.To != tt.state || o.Class != tt.class {
				t.Errorf("%s %s, %v; want %s %s", o.To, o.Class, err, tt.state, tt.class)
			}
			if rec := r.record(n); rec.State != tt.state || rec.Worker != 0 {
				t.Errorf("row %s, worker %d; want %s and no worker", rec.State, rec.Worker, tt.state)
			}
		})
	}
}

func TestDispatch(t *testing.T) {
	var seen []string
	stage := func(name string) processor.Stage {
		return stageFunc(func(c queue.Claim) { seen = append(seen, name+" "+c.Path) })
	}
	p := processor.Processor{Responses: stage("loop"), Default: stage("default")}
	for _, path := range []string{"/v1/responses", "/v1/responses/", "/v1/responses/x", "/v1/chat/completions", "/mcp"} {
		if _, err := p.Process(t.Context(), queue.Claim{Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	want := "loop /v1/responses, default /v1/responses/, default /v1/responses/x, default /v1/chat/completions, loop /mcp"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

type stageFunc func(c queue.Claim)

func (f stageFunc) Process(_ context.Context, c queue.Claim) (store.Ending, error) {
	f(c)
	return store.Ending{}, nil
}
