package endtoend_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	casemate "github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
)

var loadFor = flag.Duration("load.duration", 4*time.Second, "how long TestLoad lasts")

// loaded is a host in this process under load.
type loaded struct {
	*testing.T
	url    string
	client *http.Client
	mu     sync.Mutex
	ended  map[string]string // response id to what its client was told of its end; "": not told
	counts [5]atomic.Int64   // by kind of request
}

// TestLoad has 64 clients ask for all there is, for a while, and give some of it
// up. Then every response that a client heard of has an end, the one that the
// client was told; nothing runs on, and memory is what it was.
func TestLoad(t *testing.T) {
	buildOnce.Do(func() { build(t) })
	testdb.Each(t, func(t *testing.T, url string) {
		up, err := demo.Start(nil)
		if err != nil {
			t.Fatal(err)
		}
		before := settledGoroutines(0)
		l, stop := serveInProcess(t, url, up)
		l.drive(2 * time.Second / 2) // pools and caches fill
		used := inUse()
		l.drive(*loadFor)
		l.account()
		grown := int64(inUse()) - int64(used)
		t.Logf("%d plain, %d streams, %d background, %d chats, %d left; heap grew by %d KiB",
			l.counts[0].Load(), l.counts[1].Load(), l.counts[2].Load(), l.counts[3].Load(), l.counts[4].Load(), grown>>10)
		if most := int64(48 << 20); grown > most {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
		for i := range l.counts {
			if l.counts[i].Load() == 0 {
				t.Errorf("no request of kind %d", i)
			}
		}
		stop()
		up.Close()
		if after := settledGoroutines(before + 3); after > before+3 {
			var stacks bytes.Buffer
			buf := make([]byte, 1<<20)
			stacks.Write(buf[:runtime.Stack(buf, true)])
			t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks.String())
		}
	})
}

func serveInProcess(t *testing.T, url string, up *demo.Server) (l *loaded, stop func()) {
	t.Helper()
	h, err := casemate.New(t.Context(), casemate.Config{
		Listen: "127.0.0.1:0", Store: url, CacheDir: filepath.Join(built, "cache"),
		Upstreams: []casemate.Upstream{{Name: "up", Kind: "chat", BaseURL: up.URL()}},
		Models: []casemate.Model{
			{Name: "m", Targets: []casemate.Target{{Upstream: "up", Model: "m"}}},
			{Name: "after", Record: "after", Targets: []casemate.Target{{Upstream: "up", Model: "n"}}},
		},
		Plugins: []casemate.Plugin{{File: filepath.Join(built, "notes.wasm"), Grants: []string{"kv.get/1", "kv.put/1"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	l = &loaded{
		T: t, url: "http://" + h.Addr().String(), ended: map[string]string{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute},
	}
	return l, func() {
		l.client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// drive has 64 clients ask for so long.
func (l *loaded) drive(span time.Duration) {
	began := time.Now()
	var clients sync.WaitGroup
	for n := range 64 {
		clients.Go(func() {
			for i := n; time.Since(began) < span && !l.Failed(); i++ {
				var err error
				switch i % 5 {
				case 0:
					err = l.plain()
				case 1:
					err = l.streamed(-1)
				case 2:
					err = l.background()
				case 3:
					err = l.chat(i%2 == 0)
				case 4:
					err = l.streamed(i % 7)
				}
				if err != nil {
					l.Error(err)
				}
				l.counts[i%5].Add(1)
			}
		})
	}
	clients.Wait()
}

func (l *loaded) note(id, status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[id] = status
}

// post posts to path. It is told to come again when the host has no room.
func (l *loaded) post(ctx context.Context, path, body string) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		res, err := l.client.Do(req)
		if err != nil || res.StatusCode == http.StatusOK {
			return res, err
		}
		data, _ := io.ReadAll(res.Body) // for the message
		_ = res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusTooManyRequests {
			return nil, fmt.Errorf("%s: %d %s", path, res.StatusCode, data)
		}
		<-time.After(50 * time.Millisecond)
	}
}

type told struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

func (l *loaded) plain() error {
	res, err := l.post(l.Context(), "/v1/responses", `{"model":"m","input":"hello"}`)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var v told
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil || v.Status != "completed" {
		return fmt.Errorf("plain: %+v, %w", v, err)
	}
	l.note(v.ID, v.Status)
	return nil
}

func (l *loaded) background() error {
	res, err := l.post(l.Context(), "/v1/responses", `{"model":"m","input":"call notes_list {}","background":true}`)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var v told
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return err
	}
	l.note(v.ID, "")
	return nil
}

func (l *loaded) chat(stream bool) error {
	res, err := l.post(l.Context(), "/v1/chat/completions", fmt.Sprintf(`{"model":"after","messages":[{"role":"user","content":"hello"}],"stream":%t}`, stream))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err == nil && stream != bytes.HasSuffix(data, []byte("data: [DONE]\n\n")) {
		err = fmt.Errorf("chat, stream %t: %s", stream, data)
	}
	return err
}

// streamed reads a stream; leave ≥ 0: it breaks it off after so many events.
func (l *loaded) streamed(leave int) error {
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	res, err := l.post(ctx, "/v1/responses", `{"model":"m","input":"a few words that come one after the other","stream":true}`)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var last struct {
		Type     string
		Response told
	}
	events, id := 0, ""
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		data, ok := strings.CutPrefix(s.Text(), "data: {")
		if !ok {
			continue
		}
		last.Type = ""
		if err := json.Unmarshal([]byte("{"+data), &last); err != nil {
			return err
		}
		if id == "" {
			id = last.Response.ID
		}
		if events++; leave >= 0 && events > leave {
			l.note(id, "")
			return nil
		}
	}
	if last.Type != "response.completed" {
		return errors.New("a stream ended with " + last.Type)
	}
	l.note(id, last.Response.Status)
	return nil
}

// account asks for every response that a client heard of.
func (l *loaded) account() {
	l.Helper()
	for id, status := range l.ended {
		var v told
		for v.Status == "" || v.Status == "queued" || v.Status == "in_progress" {
			res, err := l.client.Get(l.url + "/v1/responses/" + id)
			if err != nil {
				l.Fatal(err)
			}
			err = json.NewDecoder(res.Body).Decode(&v)
			_ = res.Body.Close()
			if err != nil || v.ID != id {
				l.Fatalf("response %s: %+v, %v", id, v, err)
			}
			<-time.After(time.Millisecond)
		}
		if status != "" && v.Status != status || status == "" && v.Status != "completed" && v.Status != "cancelled" {
			l.Errorf("response %s is %s; its client was told %q", id, v.Status, status)
		}
	}
}

// inUse is the heap that is in use after a collection.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one freed in finalizers
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// settledGoroutines waits for the number of goroutines to come down to most and
// returns it.
func settledGoroutines(most int) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	n := runtime.NumGoroutine()
	for range 250 {
		if n <= most {
			break
		}
		<-tick.C
		n = runtime.NumGoroutine()
	}
	return n
}
