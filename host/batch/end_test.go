package batch

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// codes are the codes of an errors file's lines, by custom id.
func (r *rig) codes(content string) map[string]string {
	r.Helper()
	codes := map[string]string{}
	for l := range strings.Lines(content) {
		var o outputLine
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			r.Fatal(err)
		}
		codes[o.CustomID] = "response"
		if o.Error != nil {
			codes[o.CustomID] = o.Error.Code
		}
	}
	return codes
}

// loaded goes on until so many lines became requests.
func (r *rig) loaded(run *Runner, id queue.ID, n int) store.Batch {
	r.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		run.once(r.Context())
		if b := r.get(id); b.State == store.BatchRunning && b.Line >= n {
			return b
		}
	}
	r.Fatalf("batch is %+v, want %d lines loaded", r.get(id), n)
	return store.Batch{}
}

// idle goes on, while nobody works, until the batch is in a state.
func (r *rig) idle(run *Runner, id queue.ID, want store.BatchState) store.Batch {
	r.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		run.once(r.Context())
		if b := r.get(id); b.State == want {
			return b
		}
	}
	r.Fatalf("batch is %+v, want it %s", r.get(id), want)
	return store.Batch{}
}

func TestCancel(t *testing.T) {
	r := newRig(t)
	// A slice of nothing: one step at a time.
	run := r.runner(r.s, quick(func(o *Options) { o.Slice, o.Group = time.Nanosecond, 2 }))
	b := r.batch(r.upload(lines(6)))
	b = r.loaded(run, b.ID, 2)
	r.work()
	b = r.loaded(run, b.ID, 4)
	if _, err := r.s.CancelBatch(t.Context(), tenant, b.ID); err != nil {
		t.Fatal(err)
	}
	b = r.idle(run, b.ID, store.BatchCanceled)
	if b.Completed != 2 || b.Failed != 4 || b.Total != 6 || b.Canceling.IsZero() {
		t.Errorf("got %+v", b)
	}
	if got := r.ids(r.content(b.Output)); !reflect.DeepEqual(got, []string{"c1", "c2"}) {
		t.Errorf("output: got %v", got)
	}
	want := map[string]string{"c3": "batch_cancelled", "c4": "batch_cancelled", "c5": "batch_cancelled", "c6": "batch_cancelled"}
	if got := r.codes(r.content(b.Errors)); !reflect.DeepEqual(got, want) {
		t.Errorf("errors: got %v", got)
	}
}

func TestCancelBeforeItRuns(t *testing.T) {
	r := newRig(t)
	b := r.batch(r.upload(lines(6)))
	if _, err := r.s.CancelBatch(t.Context(), tenant, b.ID); err != nil {
		t.Fatal(err)
	}
	b = r.until(r.runner(r.s, quick()), b.ID, store.BatchCanceled)
	if !b.Settled || b.Total != 0 || b.Output != (queue.ID{}) {
		t.Errorf("got %+v", b)
	}
}

// TestExpire: what had not ended when the window closed, and what was no request
// yet, is told so; what had ended is in the output.
func TestExpire(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick(func(o *Options) { o.Slice, o.Group = time.Nanosecond, 2 }))
	b := r.batch(r.upload(lines(6)), func(b *store.Batch) { b.Window = "2s" })
	b = r.loaded(run, b.ID, 2)
	r.work()
	b = r.loaded(run, b.ID, 4)
	// By the database's clock; the deadline of a line may be a little later.
	for open := true; r.get(b.ID).Left > 0 || open; {
		var err error
		if _, err = r.d.Sweep(t.Context(), store.SweepRequest{}); err == nil {
			open, err = r.s.OpenLines(t.Context(), b.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b = r.idle(run, b.ID, store.BatchExpired)
	want := map[string]string{"c3": "batch_expired", "c4": "batch_expired", "c5": "batch_expired", "c6": "batch_expired"}
	if got := r.codes(r.content(b.Errors)); b.Completed != 2 || b.Failed != 4 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, errors %v", b, got)
	}
	// U3: a retry runs what did not succeed, and only that.
	r.settled(run, b.ID)
	again := r.batch(b.Input, func(n *store.Batch) { n.Parent = b.ID })
	again = r.until(run, again.ID, store.BatchCompleted)
	if got := r.ids(r.content(again.Output)); again.Total != 4 || !reflect.DeepEqual(got, []string{"c3", "c4", "c5", "c6"}) {
		t.Errorf("retry: got %+v, %v", again, got)
	}
}

func TestRetry(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick(func(o *Options) { o.Settle = time.Hour }))
	b := r.batch(r.upload(lines(3) + line("f", "fail") + "\n" + line("r", "refuse") + "\n" + lines2(4, 5)))
	b = r.until(run, b.ID, store.BatchCompleted)
	first := r.batch(b.Input, func(n *store.Batch) { n.Parent = b.ID })
	first = r.until(run, first.ID, store.BatchCompleted)
	if got := r.ids(r.content(first.Errors)); first.Total != 2 || first.Failed != 2 || !reflect.DeepEqual(got, []string{"f", "r"}) {
		t.Errorf("retry: got %+v, %v", first, got)
	}
	second := r.batch(b.Input, func(n *store.Batch) { n.Parent = first.ID })
	if second = r.until(run, second.ID, store.BatchCompleted); second.Total != 2 {
		t.Errorf("retry of the retry: got %+v", second)
	}
}

// TestForget: what a line says of its storage does not lose its output, and
// holds once that is in the file.
func TestForget(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick())
	forget := strings.Replace(line("b", "2"), `"ask"`, `"store":false,"ask"`, 1)
	b := r.batch(r.upload(line("a", "1") + "\n" + forget + "\n"))
	b = r.until(run, b.ID, store.BatchCompleted)
	if got := r.ids(r.content(b.Output)); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("output: got %v", got)
	}
	all, err := r.s.Lines(t.Context(), b.ID, 0, 9)
	if err != nil || len(all) != 2 || all[0].Forget || !all[1].Forget {
		t.Fatalf("Lines: got %+v, %v", all, err)
	}
	r.settled(run, b.ID)
	for i, want := range []bool{true, false} {
		if _, err := r.s.Get(t.Context(), tenant, all[i].Request, store.Parts{}); (err == nil) != want {
			t.Errorf("request of line %d: got %v, want it there %t", i+1, err, want)
		}
	}
}

// TestDeletedResponse: a line whose response was deleted before its batch ended
// is told of.
func TestDeletedResponse(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick())
	b := r.batch(r.upload(lines(2)))
	b = r.loaded(run, b.ID, 2)
	r.work()
	all, err := r.s.Lines(t.Context(), b.ID, 0, 9)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.s.Delete(t.Context(), tenant, all[0].Request); err != nil {
		t.Fatal(err)
	}
	b = r.until(run, b.ID, store.BatchCompleted)
	if got := r.codes(r.content(b.Errors)); b.Completed != 1 || b.Failed != 1 || got["c1"] != "response_deleted" {
		t.Errorf("got %+v, errors %v", b, got)
	}
}

// TestU12RunnerRemembersNoBatch: nothing in it could grow with the batches.
func TestU12RunnerRemembersNoBatch(t *testing.T) {
	runner := reflect.TypeFor[Runner]()
	for i := range runner.NumField() {
		f := runner.Field(i)
		if k := f.Type.Kind(); k == reflect.Map || k == reflect.Slice || k == reflect.Pointer {
			t.Errorf("field %s is a %s", f.Name, f.Type)
		}
	}
}

// waiting is a store in which requests of a batch go on.
type waiting struct {
	Store
	looks int
	again time.Duration
}

func (w *waiting) OpenLines(context.Context, queue.ID) (bool, error) { w.looks++; return true, nil }

func (w *waiting) Lines(context.Context, queue.ID, int, int) ([]store.Line, error) { return nil, nil }

func (w *waiting) StepBatch(_ context.Context, s store.BatchStep) error {
	w.again = s.Again
	return nil
}

// TestU14RunningBatchIsRarelyLookedAt: the longer it runs, the rarer, by one
// probe that looks at one request at most.
func TestU14RunningBatchIsRarelyLookedAt(t *testing.T) {
	start := time.Now()
	for ran, want := range map[time.Duration]time.Duration{
		time.Second: time.Second, time.Minute: 3 * time.Second, 5 * time.Minute: 15 * time.Second, 5 * time.Hour: 30 * time.Second,
		24*time.Hour - 10*time.Second: 10 * time.Second,
	} {
		s := &waiting{}
		h := &held{Runner: New(s, fakeMaker{}, Outputs{}, Options{}), began: time.Now(), b: store.Batch{
			State: store.BatchRunning, Started: start, Expires: start.Add(24 * time.Hour), Left: 24*time.Hour - ran,
		}}
		if err := h.goOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.looks != 1 || s.again < want-time.Second || s.again > want+time.Second {
			t.Errorf("after %s: %d looks, the next in %s, want %s", ran, s.looks, s.again, want)
		}
	}
}
