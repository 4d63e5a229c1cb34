package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// once makes the host's store keep keys as a real one does.
func (h *host) once() {
	var mu sync.Mutex
	type used struct {
		id   queue.ID
		hash []byte
	}
	keys := map[string]used{}
	h.runner.refuse = func(w store.Write) error {
		if w.Key == nil {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		key := w.Insert.Tenant + " " + w.Key.Key
		if u, ok := keys[key]; ok {
			return fmt.Errorf("claimer: %w", &store.Repeated{ID: u.id, Same: bytes.Equal(u.hash, w.Key.Hash)})
		}
		keys[key] = used{w.Insert.ID, w.Key.Hash}
		return nil
	}
}

func TestIdempotencyKeyRefused(t *testing.T) {
	h := newHost(t)
	writes := h.submitted(nil)
	for _, key := range []string{"", "a b", "ä", strings.Repeat("k", 256)} {
		h.do("POST", "/v1/responses", `{"model":"m1","input":"hi"}`, "Idempotency-Key", key).wantError(t, 400, "invalid_value", "Idempotency-Key")
	}
	if len(writes) > 0 {
		t.Errorf("got %d requests submitted, want none", len(writes))
	}
	body := `{"model":"m1","input":"hi"}`
	if a := h.do("POST", "/v1/responses", body, "Idempotency-Key", strings.Repeat("k", 255)); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	sum := sha256.Sum256([]byte(body))
	if w := <-writes; w.Key == nil || w.Key.Key != strings.Repeat("k", 255) || !bytes.Equal(w.Key.Hash, sum[:]) {
		t.Errorf("got key %+v, want it with the digest of the body", w.Key)
	}
}

// The same key and body is the same response, in the way that it was asked for.
func TestIdempotencyKeyRepeated(t *testing.T) {
	for _, body := range []string{
		`{"model":"m1","input":"hi"}`, `{"model":"m1","input":"hi","stream":true}`, `{"model":"m1","input":"hi","background":true}`,
	} {
		t.Run(body, func(t *testing.T) {
			h := newHost(t)
			h.once()
			first := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k1")
			if first.status != 200 {
				t.Fatalf("got %d %s", first.status, first.body)
			}
			again := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k1")
			if strings.Contains(body, "background") {
				if again.status != 200 || again.object(t).ID != first.object(t).ID {
					t.Errorf("got %d %s, want the response %s", again.status, again.body, first.body)
				}
				return
			}
			if again.status != 200 || !bytes.Equal(again.body, first.body) {
				t.Errorf("got %d %s, want %s", again.status, again.body, first.body)
			}
			if n := len(h.store.records); n != 1 {
				t.Errorf("got %d requests, want one", n)
			}
			if other := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k2"); bytes.Equal(other.body, first.body) {
				t.Error("another key: got the same response")
			}
			a := h.do("POST", "/v1/responses", strings.Replace(body, "hi", "ho", 1), "Idempotency-Key", "k1")
			a.wantError(t, 409, "idempotency_key_reused", "")
			if a.header.Get("X-Should-Retry") != "false" {
				t.Errorf("another body: got headers %v, want no retry", a.header)
			}
		})
	}
}

// Who attaches to a response that runs gets all of it, and does not end it by
// leaving.
func TestIdempotencyKeyAttachesToARun(t *testing.T) {
	for _, body := range []string{
		`{"model":"m1","input":"hi","stream":true}`, `{"model":"m1","input":"hi","stream":true,"store":false}`,
		`{"model":"m1","input":"hi"}`, `{"model":"m1","input":"hi","store":false}`,
	} {
		t.Run(body, func(t *testing.T) {
			h := newHost(t)
			h.once()
			waits := 0
			if strings.Contains(body, "store") { // a run that ended cannot be attached to
				h.store.waits, waits = make(chan queue.ID, 10), 2
			}
			said, finish := make(chan struct{}), make(chan struct{})
			h.runner.script = func(r *fakeRun) {
				r.begin()
				r.delta("Hel")
				close(said)
				select {
				case <-finish:
				case <-r.ctx.Done():
					r.end(queue.Outcome{To: queue.Canceled})
					return
				}
				r.delta("lo")
				r.complete()
			}
			answers := make(chan answer, 2)
			post := func() { answers <- h.do("POST", "/v1/responses", body, "Idempotency-Key", "k") }
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(post)
			wait(t, said, "first words")

			ctx, leave := context.WithCancel(t.Context())
			if strings.Contains(body, "stream") {
				res := h.open(ctx, "POST", "/v1/responses", body, "Idempotency-Key", "k")
				leave()
				res.Body.Close()
				waits += min(waits, 1)
			}
			leave()
			wg.Go(post)
			for range waits {
				wait(t, h.store.waits, "wait for the run")
			}
			close(finish)
			a, b := wait(t, answers, "an answer"), wait(t, answers, "the other answer")
			if a.status != 200 || b.status != 200 || !bytes.Equal(a.body, b.body) || !strings.Contains(string(a.body), "Hello") {
				t.Errorf("got %d %s\nand %d %s", a.status, a.body, b.status, b.body)
			}
			if len(h.store.canceled) != 0 {
				t.Error("who left canceled it")
			}
		})
	}
}

// A failure is told again as it was, and that it stays so.
func TestIdempotencyKeyOfAFailure(t *testing.T) {
	h := newHost(t)
	h.once()
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.end(queue.Outcome{To: queue.Failed, Class: queue.UpstreamStatus, Status: 503})
	}
	const body = `{"model":"m1","input":"hi"}`
	first := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k")
	again := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k")
	if first.status != 503 || first.header.Get("X-Should-Retry") != "" || first.header.Get("Retry-After") == "" {
		t.Errorf("first: got %d %v, want a 503 that may be tried again", first.status, first.header)
	}
	if again.status != 503 || again.header.Get("X-Should-Retry") != "false" || again.header.Get("Retry-After") != "" || len(h.runner.runs) != 1 {
		t.Errorf("again: got %d %v and %d runs, want the same 503 for good, of one run", again.status, again.header, len(h.runner.runs))
	}
}

// What is not stored cannot be told again.
func TestIdempotencyKeyOfAnUnstoredResponse(t *testing.T) {
	h := newHost(t)
	h.once()
	body := `{"model":"m1","input":"hi","store":false}`
	first := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k")
	if first.status != 200 {
		t.Fatalf("got %d %s", first.status, first.body)
	}
	final := func(a answer) {
		t.Helper()
		a.wantError(t, 409, "idempotency_response_gone", "")
		if a.header.Get("X-Should-Retry") != "false" {
			t.Errorf("got headers %v, want no retry", a.header)
		}
	}
	final(h.do("POST", "/v1/responses", body, "Idempotency-Key", "k"))
	id := idOf(t, first.object(t).ID)
	h.store.change(id, func(r *store.Record) { r.State = queue.Processing }) // on another host
	a := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k")
	a.wantError(t, 409, "idempotency_in_progress", "")
	if a.header.Get("X-Should-Retry") != "false" { // what that host makes never comes here
		t.Errorf("got headers %v, want no retry", a.header)
	}
	h.store.mu.Lock()
	delete(h.store.records, id)
	h.store.mu.Unlock()
	final(h.do("POST", "/v1/responses", body, "Idempotency-Key", "k"))
}

// A request that is sent again is answered although what it refers to has gone
// meanwhile.
func TestIdempotencyKeyOutlivesWhatItsRequestRefersTo(t *testing.T) {
	h := newHost(t)
	parent := h.do("POST", "/v1/responses", `{"model":"m1","input":"hi"}`).object(t).ID
	body := fmt.Sprintf(`{"model":"m1","input":"and","previous_response_id":%q}`, parent)
	first := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k1")
	if first.status != 200 {
		t.Fatalf("got %d %s", first.status, first.body)
	}
	id, err := queue.ParseID(strings.TrimPrefix(first.object(t).ID, "resp_"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	h.store.keyed = func(k store.Key) *store.Repeated {
		return &store.Repeated{ID: id, Same: k.Key == "k1" && bytes.Equal(k.Hash, sum[:])}
	}
	if a := h.do("DELETE", "/v1/responses/"+parent, ""); a.status != 200 {
		t.Fatalf("delete: got %d %s", a.status, a.body)
	}
	if again := h.do("POST", "/v1/responses", body, "Idempotency-Key", "k1"); again.status != 200 || !bytes.Equal(again.body, first.body) {
		t.Errorf("again: got %d %s, want %s", again.status, again.body, first.body)
	}
	h.do("POST", "/v1/responses", body+" ", "Idempotency-Key", "k1").wantError(t, 409, "idempotency_key_reused", "")
}
