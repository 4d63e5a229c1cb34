package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

const (
	tenant = "acme"
	model  = "m1"
	path   = "/v1/chat/completions"
)

// rig is a store with batches, and the worker that runs their requests.
type rig struct {
	*testing.T
	d      store.Driver
	s      *store.Store
	worker int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return onDriver(t, d)
}

func onDriver(t *testing.T, d store.Driver) *rig {
	t.Helper()
	p, err := d.Heartbeat(t.Context(), store.Beat{Host: "h", Version: "v", Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{T: t, d: d, s: store.New(d, store.Options{}), worker: p.Worker}
}

// quick are options with which nothing waits.
func quick(change ...func(*Options)) Options {
	o := Options{Poll: time.Millisecond, Settle: time.Millisecond, Group: 3}
	for _, f := range change {
		f(&o)
	}
	return o
}

func (r *rig) runner(s Store, o Options) *Runner {
	return New(s, fakeMaker{}, Outputs{Store: r.s, Failure: failure}, o)
}

// failure answers a request that failed as the host would.
func failure(rec store.Record) (status int, body []byte) {
	return rec.Result.Status, fmt.Appendf(nil, "{\n \"error\": {\"code\": %q}}", rec.Code)
}

// fakeMaker makes a request of any body but those that say otherwise.
type fakeMaker struct{}

func (fakeMaker) MayUse(t, m string) bool { return t == tenant && m != "unknown" }

type refused struct{ error }

func (refused) Refusal() (int, []byte) { return 400, []byte(`{"error":{"code":"bad"}}`) }

func (fakeMaker) Prepare(_ context.Context, t, p string, body []byte) (queue.New, []response.Event, error) {
	var b struct {
		Model string
		Ask   string
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return queue.New{}, nil, err
	}
	if b.Ask == "refuse" {
		return queue.New{}, nil, fmt.Errorf("no: %w", refused{errors.New("bad")})
	}
	n := queue.New{ID: queue.NewID(), Tenant: t, Model: b.Model, Path: p, Tier: "default", Body: body}
	return n, []response.Event{{Seq: 0, Data: []byte("{}")}}, nil
}

// line is one line of an input.
func line(id, ask string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":%q,"body":{"model":%q,"ask":%q}}`, id, path, model, ask)
}

// lines are so many of them.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, line(fmt.Sprint("c", i+1), fmt.Sprint("q", i+1)))
	}
	return b.String()
}

// upload stores an input.
func (r *rig) upload(content string) queue.ID {
	r.Helper()
	f := store.File{ID: queue.NewID(), Tenant: tenant, Name: "in.jsonl"}
	if err := r.s.CreateFile(r.Context(), f); err != nil {
		r.Fatal(err)
	}
	for n, rest := 0, content; rest != ""; n++ {
		part := rest[:min(len(rest), store.FileChunk)]
		rest = rest[len(part):]
		if err := r.s.PutChunk(r.Context(), f.ID, n, []byte(part)); err != nil {
			r.Fatal(err)
		}
	}
	if _, err := r.s.FinishFile(r.Context(), f.ID, store.FileEnd{Purpose: "batch", Bytes: int64(len(content))}); err != nil {
		r.Fatal(err)
	}
	return f.ID
}

// batch makes a batch of an input.
func (r *rig) batch(input queue.ID, change ...func(*store.Batch)) store.Batch {
	r.Helper()
	b := store.Batch{ID: queue.NewID(), Tenant: tenant, Endpoint: path, Window: "24h", Input: input}
	window := 24 * time.Hour
	for _, f := range change {
		f(&b)
	}
	if b.Window != "24h" {
		window, _ = time.ParseDuration(b.Window)
	}
	b, err := r.s.CreateBatch(r.Context(), b, window)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

func (r *rig) get(id queue.ID) store.Batch {
	r.Helper()
	b, err := r.s.Batch(r.Context(), tenant, id)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

// work claims what is queued and ends it: by what it was asked.
func (r *rig) work() {
	r.Helper()
	claims, err := r.d.Claim(r.Context(), store.ClaimRequest{Worker: r.worker, Models: []string{model}, N: 100, Start: true})
	if err != nil {
		r.Fatal(err)
	}
	var writes []store.Write
	for _, c := range claims {
		var b struct{ Ask string }
		if err := json.Unmarshal(c.Body, &b); err != nil {
			r.Fatal(err)
		}
		w := store.Write{Fence: c.Fence(), Move: &store.Move{
			To: queue.Completed, By: queue.ByOutcome, Class: queue.OK,
			Result: &store.Result{Status: 200, ContentType: "application/json", Body: []byte("{\n  \"answer\": \"" + b.Ask + " <&>\"\n}\n")},
		}}
		if b.Ask == "fail" {
			w.Move.To, w.Move.Class, w.Move.Code, w.Move.Result = queue.Failed, queue.UpstreamStatus, "broken", &store.Result{Status: 422}
		}
		writes = append(writes, w)
	}
	results, err := r.d.Write(r.Context(), writes)
	if err = errors.Join(append(results, err)...); err != nil {
		r.Fatal(err)
	}
}

// until goes on until the batch is in a state.
func (r *rig) until(run *Runner, id queue.ID, want store.BatchState) store.Batch {
	r.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		run.once(r.Context())
		r.work()
		if b := r.get(id); b.State == want {
			return b
		}
	}
	r.Fatalf("batch is %+v, want it %s", r.get(id), want)
	return store.Batch{}
}

// settled goes on until there is nothing left to do.
func (r *rig) settled(run *Runner, id queue.ID) store.Batch {
	r.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		run.once(r.Context())
		r.work()
		if b := r.get(id); b.Settled {
			return b
		}
	}
	r.Fatalf("batch is %+v, want it settled", r.get(id))
	return store.Batch{}
}

// content is what a file that is Ready holds.
func (r *rig) content(id queue.ID) string {
	r.Helper()
	f, err := r.s.File(r.Context(), tenant, id)
	if err != nil {
		r.Fatal(err)
	}
	var b bytes.Buffer
	for n := 0; ; n++ {
		part, err := r.s.Chunk(r.Context(), id, n)
		if err != nil {
			r.Fatal(err)
		}
		if part == nil {
			break
		}
		b.Write(part)
	}
	if int64(b.Len()) != f.Bytes {
		r.Errorf("file of %d bytes holds %d", f.Bytes, b.Len())
	}
	return b.String()
}

// now is what a file would hold as the batch stands.
func (r *rig) now(b store.Batch, errors bool) string {
	r.Helper()
	var got bytes.Buffer
	err := Outputs{Store: r.s, Failure: failure}.Write(r.Context(), b, errors, func(line []byte) error {
		got.Write(line)
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	return got.String()
}

// ids are the custom ids of an output, in order.
func (r *rig) ids(content string) (ids []string) {
	r.Helper()
	for l := range strings.Lines(content) {
		var o outputLine
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			r.Fatalf("line %q: %v", l, err)
		}
		ids = append(ids, o.CustomID)
	}
	return ids
}
