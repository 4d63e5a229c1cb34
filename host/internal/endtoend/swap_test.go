package endtoend_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
)

// TestSwapPolicyUnderLoad replaces the retry policy's file again and again
// while requests fail once each, so that each asks it.
func TestSwapPolicyUnderLoad(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		tried := map[string]bool{} // by idempotency key: fail every first try
		r := newRig(t, url, func(_ int, req demo.Request) demo.Turn {
			key := req.Header.Get("Idempotency-Key")
			mu.Lock()
			defer mu.Unlock()
			if !tried[key] {
				tried[key] = true
				return demo.Turn{Status: http.StatusServiceUnavailable}
			}
			return demo.Turn{Text: "served"}
		})
		usual, eager := module(t, "retry-default.wasm"), module(t, "retry-eager.wasm")
		r.retry = filepath.Join(r.dir, "retry.wasm")
		replace(t, r.retry, usual)
		h := r.start()

		load := startLoad(t, h)
		inUse := digest(usual)
		for i := range 20 {
			next := [][]byte{eager, usual}[i%2]
			if i%4 == 3 { // five times in twenty, rubbish comes first
				replace(t, r.retry, []byte("not a module"))
				r.eventually("the rubbish is refused", func() bool { return strings.Contains(ready(t, h), "not ") })
				if got := ready(t, h); !strings.Contains(got, inUse) {
					t.Fatalf("readyz %s; want %s still in use", got, inUse)
				}
			}
			replace(t, r.retry, next)
			inUse = digest(next)
			r.eventually("the module is swapped in", func() bool { return strings.Contains(ready(t, h), "in use: "+inUse) })
			load.waitFor(t, 10)
		}
		ids := load.stop()

		deciders := map[string]int{}
		for _, id := range ids {
			for _, d := range r.record(id).Decisions {
				if d.Kind == "retry" {
					deciders[d.Generation]++
					switch d.Fallback {
					case "", "guest_deadline": // the machine was busy compiling the next module
					default:
						t.Errorf("%s: the built-in policy answered: %s", id, d.Fallback)
					}
				}
			}
		}
		if deciders[digest(usual)] == 0 || deciders[digest(eager)] == 0 {
			t.Errorf("decisions by %v; want both modules among them", deciders)
		}
		n := deciders[digest(usual)] + deciders[digest(eager)] + deciders["builtin"]
		if n != len(ids) || len(deciders) > 3 {
			t.Errorf("decisions by %v for %d requests; want one each, by a module that was loaded", deciders, len(ids))
		}
	})
}

// TestChangedConfiguration names another policy file in the configuration of a
// running host while a request waits for its next try: the request's next
// failure is the new policy's to decide. A file that is broken changes nothing.
func TestChangedConfiguration(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		r := newRig(t, url, func(n int, _ demo.Request) demo.Turn {
			if n < 2 {
				return demo.Turn{Status: http.StatusServiceUnavailable}
			}
			return demo.Turn{Text: "served"}
		})
		r.retry = filepath.Join(built, "patient.wasm")
		h := r.start()
		id := h.background("hello")
		r.eventually("the request waits", func() bool { return r.record(id).State == queue.Waiting })

		r.retry = filepath.Join(r.dir, "broken.wasm")
		replace(t, r.retry, []byte("not a module"))
		r.config(site{})
		r.eventually("the broken policy is refused", func() bool { return strings.Contains(ready(t, h), "broken.wasm") })
		patient, eager := digest(module(t, "patient.wasm")), digest(module(t, "retry-eager.wasm"))
		if got := ready(t, h); !strings.Contains(got, patient) {
			t.Errorf("readyz %s; want %s still in use", got, patient)
		}
		r.retry = filepath.Join(built, "retry-eager.wasm")
		r.config(site{})
		r.eventually("the new policy is in use", func() bool { return strings.Contains(ready(t, h), "in use: "+eager) })

		if v := h.await(id); v["status"] != "completed" || text(v) != "served" {
			t.Errorf("%v, text %q; want completed", v["status"], text(v))
		}
		var by []string
		for _, d := range r.record(id).Decisions {
			if d.Kind == "retry" {
				by = append(by, d.Generation)
			}
		}
		if len(by) != 2 || by[0] != patient || by[1] != eager {
			t.Errorf("retries were decided by %v; want %s, then %s", by, patient, eager)
		}
	})
}

func module(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(built, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// replace puts a file in place of another, as a deployment does.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// ready returns what /readyz says, which must be that the host is ready.
func ready(t *testing.T, h *host) string {
	t.Helper()
	res, err := http.Get(h.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("readyz: %d %s %v", res.StatusCode, b, err)
	}
	return string(b)
}

// load is clients that post one blocking request after the other.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	served chan struct{}

	mu  sync.Mutex
	ids []string
}

func startLoad(t *testing.T, h *host) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, served: make(chan struct{}, 1024)}
	t.Cleanup(cancel)
	for range 4 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				id, err := postOne(h)
				if err != nil {
					t.Errorf("request failed: %v", err)
					return
				}
				l.mu.Lock()
				l.ids = append(l.ids, id)
				l.mu.Unlock()
				select {
				case l.served <- struct{}{}:
				default:
				}
			}
		})
	}
	return l
}

// waitFor waits until n more requests were served.
func (l *load) waitFor(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-l.served:
		case <-time.After(30 * time.Second):
			t.Fatal("no request was served for 30 s")
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func (l *load) stop() []string {
	l.cancel()
	l.wg.Wait()
	return l.ids
}

func postOne(h *host) (string, error) {
	res, err := http.Post(h.url+"/v1/responses", "application/json", bytes.NewReader([]byte(`{"model":"m","input":"hello"}`)))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var v struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK || v.Status != "completed" {
		return "", fmt.Errorf("status %d, response %s %s", res.StatusCode, v.ID, v.Status)
	}
	return v.ID, nil
}
