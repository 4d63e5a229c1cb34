package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/demo"
)

// The goals of the design, for what this program measures.
const (
	goalStepSQLite   = time.Millisecond
	goalStepPostgres = 3 * time.Millisecond
	goalAddedSQLite  = 1500 * time.Microsecond
	goalStart        = 5 * time.Millisecond
)

// Goals of our own where the design sets none: some hundreds of requests a
// second are a large fleet's traffic.
const (
	goalAddedPostgres = 3 * time.Millisecond
	goalRate          = 1000
)

// server is a host in this process, and its scripted upstream.
type server struct {
	url      string
	upstream *demo.Server
	arrived  chan time.Time // of background requests at the upstream
	stop     func() error
}

const (
	chatBody = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`
	loopBody = `{"model":"m","input":"What is 6*7?"}`
	backBody = `{"model":"m","input":"note the time","background":true}`
)

func startServer(ctx context.Context, storeURL, wasm string) (*server, error) {
	s := &server{arrived: make(chan time.Time, 1)}
	up, err := demo.Start(func(n int, r demo.Request) demo.Turn {
		if bytes.Contains(r.Body, []byte("note the time")) {
			s.arrived <- time.Now()
		}
		t := demo.Model(n, r)
		t.ChunkRunes = 1 << 20 // one chunk: the loop is measured, not the stream
		return t
	})
	if err != nil {
		return nil, err
	}
	s.upstream = up
	h, err := host.New(ctx, host.Config{
		Listen: "127.0.0.1:0", Store: storeURL,
		Upstreams: []host.Upstream{{Name: "up", Kind: "openai", BaseURL: up.URL()}},
		Models:    []host.Model{{Name: "m", Targets: []host.Target{{Upstream: "up", Model: "m"}}}},
		Plugins:   []host.Plugin{{File: wasm + "/calculator.wasm"}},
	})
	if err != nil {
		up.Close()
		return nil, err
	}
	runCtx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(runCtx) }()
	s.url = "http://" + h.Addr().String()
	s.stop = func() error {
		cancel()
		err := <-done
		up.Close()
		return err
	}
	return s, nil
}

// post posts a body and reads the whole answer.
func post(c *http.Client, url, body string) error {
	res, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, res.Status, answer)
	}
	return err
}

// p50 runs f n times, after a tenth of that unmeasured, and returns the median.
func p50(n int, f func() error) (time.Duration, error) {
	var all []time.Duration
	for i := range n + n/10 {
		began := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		if i >= n/10 {
			all = append(all, time.Since(began))
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// benchHost measures a host on one database.
func benchHost(ctx context.Context, r *report, name, storeURL, wasm string, n int) error {
	s, err := startServer(ctx, storeURL, wasm)
	if err != nil {
		return err
	}
	err = s.measure(r, name, n)
	if stopping := s.stop(); err == nil {
		err = stopping
	}
	return err
}

func (s *server) measure(r *report, name string, n int) error {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	up := s.upstream.URL()
	sample := func(url, body string) (time.Duration, error) {
		return p50(n, func() error { return post(c, url, body) })
	}
	direct, err := sample(up+"/chat/completions", chatBody)
	if err != nil {
		return err
	}
	through, err := sample(s.url+"/v1/chat/completions", chatBody)
	if err != nil {
		return err
	}
	goal := goalAddedPostgres
	if name == "sqlite" {
		goal = goalAddedSQLite
	}
	r.most("chat_added_"+name+"_p50", through-direct, goal, fmt.Sprintf(
		"chat completion through the host %s - straight to the upstream %s; row written before", micros(through), micros(direct)))
	if err := s.throughput(r, name, c); err != nil {
		return err
	}
	started, err := s.enqueueToStart(c, n/3)
	if err != nil {
		return err
	}
	r.most("enqueue_to_start_"+name+"_p50", started, goalStart, "POST of a background response sent to its model call's arrival at the upstream, idle host")
	return nil
}

// throughput counts chat completions of 64 clients for 5 s, through the host
// and straight to the upstream.
func (s *server) throughput(r *report, name string, c *http.Client) error {
	direct, err := rate(c, s.upstream.URL()+"/chat/completions", chatBody)
	if err != nil {
		return err
	}
	through, err := rate(c, s.url+"/v1/chat/completions", chatBody)
	if err != nil {
		return err
	}
	r.line("default_processor_"+name, fmt.Sprintf("%.0f/s", through), fmt.Sprintf(">=%d/s", goalRate), through >= goalRate, fmt.Sprintf(
		"64 clients, 5 s; straight to the upstream %.0f/s, ratio %.2f; clients, host, upstream and database share the machine", direct, through/direct))
	return nil
}

func rate(c *http.Client, url, body string) (float64, error) {
	const clients, span = 64, 5 * time.Second
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(began) < span && failed.Load() == nil {
				if err := post(c, url, body); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}

// enqueueToStart measures from the moment a background response is posted to
// the arrival of its model call.
func (s *server) enqueueToStart(c *http.Client, n int) (time.Duration, error) {
	var all []time.Duration
	for range n {
		began := time.Now()
		id, err := create(c, s.url+"/v1/responses", backBody)
		if err != nil {
			return 0, err
		}
		all = append(all, (<-s.arrived).Sub(began))
		if err := s.awaitEnd(c, id); err != nil { // the host is idle again
			return 0, err
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// create posts a body and returns the id of the response it made.
func create(c *http.Client, url, body string) (string, error) {
	res, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var v struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return "", err
	}
	return v.ID, nil
}

// awaitEnd follows a response's stream to its end.
func (s *server) awaitEnd(c *http.Client, id string) error {
	res, err := c.Get(s.url + "/v1/responses/" + id + "?stream=true")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
