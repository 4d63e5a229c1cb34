package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
)

// stopwatch adds up the time spent outside the loop: in the upstream and in
// the tool. What is left of a response's time is the loop's own.
type stopwatch struct {
	*upstream.Client
	spent atomic.Int64 // nanoseconds
}

func (s *stopwatch) Do(ctx context.Context, c upstream.Call) (upstream.Reply, error) {
	began := time.Now()
	inside := time.Duration(0)
	onData := c.OnData
	c.OnData = func(data []byte) error {
		in := time.Now()
		defer func() { inside += time.Since(in) }()
		return onData(data)
	}
	reply, err := s.Client.Do(ctx, c)
	s.spent.Add(int64(time.Since(began) - inside))
	return reply, err
}

// Resolve, with the methods below, is one tool that answers at once: what a
// real one takes is no part of the loop.
func (s *stopwatch) Resolve(string, []response.Offer) loop.Toolset { return s }
func (s *stopwatch) Release()                                      {}

func (s *stopwatch) Stateful(response.ServerTool) bool       { return false }
func (s *stopwatch) Check(response.ServerTool, []byte) error { return nil }
func (s *stopwatch) Tools() []response.ServerTool {
	return []response.ServerTool{{
		Offer:   response.Offer{Name: "calculator", Plugin: "calculator", Tool: "calculator"},
		Effects: "pure", Parameters: json.RawMessage(`{"type":"object"}`),
	}}
}

func (s *stopwatch) Call(context.Context, loop.ToolCall) loop.ToolResult {
	return loop.ToolResult{Class: queue.OK, Output: "42", RetryAfter: -1}
}

// benchLoop measures what the loop adds to each of the three steps of a
// response with one tool call, commits included.
func benchLoop(ctx context.Context, r *report, name, storeURL string, goal time.Duration, n int) error {
	srv, err := demo.Start(func(n int, req demo.Request) demo.Turn {
		t := demo.Model(n, req)
		t.ChunkRunes = 1 << 20
		return t
	})
	if err != nil {
		return err
	}
	defer srv.Close()
	up, err := upstream.New(upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: srv.URL()}},
		Models:    []upstream.Model{{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "m"}}}},
	})
	if err != nil {
		return err
	}
	driver, err := open(ctx, storeURL)
	if err != nil {
		return err
	}
	defer driver.Close()
	s, watch := store.New(driver, store.Options{}), &stopwatch{Client: up}
	hub := stream.NewHub(s, stream.Options{})
	l := loop.New(s, &loop.Caller{Policy: policy.New(nil), Upstream: watch}, watch, hub, loop.Options{})
	c := claimer.New(s, l, claimer.Options{Models: claimer.Fixed("m"), Drain: time.Millisecond})
	base, end := context.WithCancel(ctx)
	work, stop := context.WithCancel(base)
	var parts, worker sync.WaitGroup
	parts.Go(func() { _ = s.Run(base) }) // ends with base
	parts.Go(func() { _ = hub.Run(base) })
	worker.Go(func() { _ = c.Run(work, base) })
	<-c.Ready()
	own, whole, err := samples(ctx, c, watch, n)
	stop()
	worker.Wait()
	end()
	parts.Wait()
	if err != nil {
		return err
	}
	r.most("loop_overhead_per_step_"+name+"_p50", own/3, goal, fmt.Sprintf(
		"(whole stored response %s - time in the upstream and the tool) / 3 steps, p50 of %d; built-in policies", micros(whole), n))
	return nil
}

func open(ctx context.Context, url string) (store.Driver, error) {
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		return sqlite.Open(ctx, path, sqlite.Options{})
	}
	return postgres.Open(ctx, url, postgres.Options{})
}

// samples runs n responses one after the other and returns the medians of the
// loop's own time and of the whole.
func samples(ctx context.Context, c *claimer.Claimer, watch *stopwatch, n int) (own, whole time.Duration, err error) {
	req, err := response.ParseRequest([]byte(loopBody))
	if err != nil {
		return 0, 0, err
	}
	body, err := response.Brief{Request: req, Offers: []response.Offer{watch.Tools()[0].Offer}}.Encode()
	if err != nil {
		return 0, 0, err
	}
	var owns, wholes []time.Duration
	for i := range n + n/10 {
		in := queue.New{ID: queue.NewID(), Tenant: "bench", Model: "m", Path: "/v1/responses", Store: true, Body: body}
		began := time.Now()
		watch.spent.Store(0)
		run, err := c.Submit(ctx, store.Write{Insert: &in, Events: response.NewStream(in.ID, in.ID.Time(), req, watch.Tools()).Created(false)})
		if err != nil {
			return 0, 0, err
		}
		o, err := run.Wait(ctx)
		if err != nil || o.To != queue.Completed {
			return 0, 0, fmt.Errorf("response ended %s: %w", o.To, err)
		}
		if total := time.Since(began); i >= n/10 {
			wholes = append(wholes, total)
			owns = append(owns, total-time.Duration(watch.spent.Load()))
		}
	}
	slices.Sort(owns)
	slices.Sort(wholes)
	return owns[len(owns)/2], wholes[len(wholes)/2], nil
}
