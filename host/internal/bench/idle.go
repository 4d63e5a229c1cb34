package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/demo"
)

// idleStreams is how many clients watch a response on which nothing happens.
const idleStreams = 1000

// goalIdle is our own: of one of two cores, what 1,000 clients cost that wait.
const goalIdle = 10.0

// benchIdle measures what it costs that 1,000 clients watch background responses
// which wait in the queue.
func benchIdle(ctx context.Context, r *report, name, storeURL string) (err error) {
	never := make(chan struct{})
	up, err := demo.Start(func(int, demo.Request) demo.Turn { return demo.Turn{Text: "late", Gate: never} })
	if err != nil {
		return err
	}
	defer up.Close()
	defer close(never)
	h, err := host.New(ctx, host.Config{
		Listen: "127.0.0.1:0", Store: storeURL, Slots: 1, Drain: time.Millisecond,
		Upstreams: []host.Upstream{{Name: "up", Kind: "chat", BaseURL: up.URL()}},
		Models:    []host.Model{{Name: "m", Targets: []host.Target{{Upstream: "up", Model: "m"}}}},
	})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(running) }()
	defer func() {
		cancel()
		if stopping := <-done; err == nil {
			err = stopping
		}
	}()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: idleStreams}}
	defer c.CloseIdleConnections()
	quiet := spent(2 * time.Second)
	var opened sync.WaitGroup
	failed := make(chan error, idleStreams)
	for range idleStreams {
		opened.Go(func() {
			res, err := c.Post("http://"+h.Addr().String()+"/v1/responses", "application/json", strings.NewReader(`{"model":"m","input":"wait","background":true,"stream":true}`))
			if err != nil || res.StatusCode != http.StatusOK {
				failed <- fmt.Errorf("stream: %v %w", res, err)
				return
			}
			context.AfterFunc(running, func() { _ = res.Body.Close() })
		})
	}
	opened.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	busy := spent(10 * time.Second)
	r.line("idle_streams_"+name, fmt.Sprintf("%.1f%%", busy), fmt.Sprintf("<=%.0f%%", goalIdle), busy <= goalIdle, fmt.Sprintf(
		"of a core, for 10 s, while %d clients watch a queued response each; %.1f%% before they came; all their tails are one query each 100 ms; own goal", idleStreams, quiet))
	return nil
}

// spent is the part of a core, in percent, that this process uses meanwhile.
func spent(span time.Duration) float64 {
	before := cpu()
	<-time.After(span)
	return 100 * float64(cpu()-before) / float64(span)
}
