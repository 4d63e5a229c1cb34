package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

// Goals of the design, and of our own where it sets none.
const (
	goalAddedAfter = 300 * time.Microsecond
	goalToken      = 20 * time.Microsecond
	// Own: the slowest of a hundred, with nothing else running; what 64 clients
	// wait for on two cores that they share with host and upstream; a token costs
	// a handful of allocations, none of them by its length.
	goalAddedP99 = 3 * time.Millisecond
	goalBusy     = 30 * time.Millisecond
	goalAllocs   = 12
)

// overhead measures what a host adds to chat completions of an upstream that
// answers at once, by when the request is written.
type overhead struct {
	r        *report
	upstream *fixed
	client   *http.Client
	url      string
	stop     func() error
}

// benchOverhead measures on one database. Each way of recording has a host of its
// own: what one leaves to be written must not burden the next.
func benchOverhead(ctx context.Context, r *report, name, storeURL, wasm string, n int) error {
	goals := map[string]time.Duration{"before": goalAddedSQLite, "after": goalAddedAfter, "off": goalAddedAfter}
	if name == "postgres" {
		goals["before"] = goalAddedPostgres
	}
	for _, record := range []string{"before", "after", "off"} {
		err := withHost(ctx, r, storeURL, host.Policies{}, func(o *overhead) error {
			if err := o.whole(name, record, goals[record], n); err != nil {
				return err
			}
			return o.streamed(name, record, n/10)
		})
		if err != nil {
			return err
		}
	}
	err := withHost(ctx, r, storeURL, host.Policies{}, func(o *overhead) error {
		long := strings.Replace(chatOf("off", false), "hello", strings.Repeat("It was a dark and stormy night. ", longBody/32), 1)
		return o.added("long_"+name, long, "the request has 32 KiB", n)
	})
	if err != nil {
		return err
	}
	return withHost(ctx, r, storeURL, host.Policies{Route: wasm + "/route-default.wasm"}, func(o *overhead) error {
		return o.added("routed_"+name, chatOf("off", false), "the module route-default is asked where to", n)
	})
}

// withHost measures with a host that it starts and stops.
func withHost(ctx context.Context, r *report, storeURL string, policies host.Policies, measure func(*overhead) error) error {
	o, err := startOverhead(ctx, r, storeURL, policies)
	if err != nil {
		return err
	}
	err = measure(o)
	if stopping := o.stop(); err == nil {
		err = stopping
	}
	return err
}

// longBody is how many bytes of text a long request has: a conversation of some
// length.
const longBody = 32 << 10

// added measures another request than whole does, without a row.
func (o *overhead) added(name, body, what string, n int) error {
	direct, through, err := o.both(body, 1, n)
	if err != nil {
		return err
	}
	o.r.most("chat_added_off_"+name+"_p50", through.p(50)-direct.p(50), goalAddedAfter, fmt.Sprintf(
		"as chat_added_off, but %s; %s and %s", what, micros(through.p(50)), micros(direct.p(50))))
	return nil
}

func startOverhead(ctx context.Context, r *report, storeURL string, policies host.Policies) (*overhead, error) {
	up, err := startFixed()
	if err != nil {
		return nil, err
	}
	c := host.Config{
		Listen: "127.0.0.1:0", Store: storeURL, Policies: policies,
		Logger:    hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: io.Discard}), // a line a request, as in use
		Upstreams: []host.Upstream{{Name: "up", Kind: "chat", BaseURL: up.url}},
	}
	for _, record := range []string{"before", "after", "off"} {
		c.Models = append(c.Models, host.Model{Name: record, Record: record, Targets: []host.Target{{Upstream: "up", Model: "m"}}})
	}
	h, err := host.New(ctx, c)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(running) }()
	return &overhead{
		r: r, upstream: up, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}},
		url: "http://" + h.Addr().String() + "/v1",
		stop: func() error {
			cancel()
			err := <-done
			if closing := up.close(); err == nil {
				err = closing
			}
			return err
		},
	}, nil
}

func chatOf(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hello"}],"stream":%t}`, model, stream)
}

// whole measures answers that are not streamed, of one client and of 64.
func (o *overhead) whole(name, record string, goal time.Duration, n int) error {
	body := chatOf(record, false)
	direct, through, err := o.both(body, 1, n)
	if err != nil {
		return err
	}
	o.r.most(fmt.Sprintf("chat_added_%s_%s_p50", record, name), through.p(50)-direct.p(50), goal, fmt.Sprintf(
		"1 client, %d requests each way in turns; through the host %s, straight to the upstream %s", n, micros(through.p(50)), micros(direct.p(50))))
	o.r.most(fmt.Sprintf("chat_added_%s_%s_p99", record, name), through.p(99)-direct.p(99), goalAddedP99, fmt.Sprintf(
		"the same run; own goal; %s and %s", micros(through.p(99)), micros(direct.p(99))))
	direct, through, err = o.both(body, 64, 10*n)
	if err != nil {
		return err
	}
	cost := (through.cpu - direct.cpu) / time.Duration(len(through.all))
	allocs := (through.allocs - direct.allocs) / uint64(len(through.all))
	o.r.most(fmt.Sprintf("chat_added_%s_%s_64_p50", record, name), through.p(50)-direct.p(50), goalBusy, fmt.Sprintf(
		"64 clients, %d requests each way; own goal; %s and %s; p99 %s and %s; a request costs %s of CPU and %d allocations more, HTTP included",
		10*n, micros(through.p(50)), micros(direct.p(50)), micros(through.p(99)), micros(direct.p(99)), micros(cost), allocs))
	return nil
}

// streamed measures what one more token of a stream costs.
func (o *overhead) streamed(name, record string, n int) error {
	body := chatOf(record, true)
	direct, through, err := o.both(body, 1, max(n, 10))
	if err != nil {
		return err
	}
	added := (through.p(50) - direct.p(50)) / tokens
	o.r.most(fmt.Sprintf("token_added_%s_%s", record, name), added, goalToken, fmt.Sprintf(
		"a stream of %d tokens as fast as they go, less the same straight from the upstream, by token; %s and %s; CPU of all parts %s a token", tokens,
		micros(through.p(50)), micros(direct.p(50)), micros((through.cpu-direct.cpu)/time.Duration(tokens*len(through.all)))))
	allocs := float64(through.allocs-direct.allocs) / float64(tokens*len(through.all))
	o.r.line(fmt.Sprintf("token_allocs_%s_%s", record, name), fmt.Sprintf("%.1f", allocs), fmt.Sprintf("<=%d", goalAllocs), allocs <= goalAllocs,
		"allocations by token of the same streams, less those of client and upstream alone; own goal")
	direct, through, err = o.both(body, 64, 128)
	if err != nil {
		return err
	}
	added = (through.p(50) - direct.p(50)) / tokens / 64
	o.r.most(fmt.Sprintf("token_added_%s_%s_64", record, name), added, goalToken, fmt.Sprintf(
		"64 such streams at once, by token of all of them; %s and %s", micros(through.p(50)), micros(direct.p(50))))
	return nil
}

// spell is latencies, and what the process used meanwhile.
type spell struct {
	all    []time.Duration // sorted
	cpu    time.Duration
	allocs uint64
}

func (s spell) p(percent int) time.Duration {
	return s.all[min(len(s.all)-1, len(s.all)*percent/100)]
}

// both measures n requests straight to the upstream and through the host, in
// turns of a tenth, so that a noisy spell touches both.
func (o *overhead) both(body string, clients, n int) (direct, through spell, err error) {
	turn := max(n/10, clients)
	for _, warm := range []string{o.upstream.url, o.url} {
		if _, err := o.run(warm, body, clients, turn); err != nil {
			return direct, through, err
		}
	}
	for done := 0; done < n; done += turn {
		for _, part := range []struct {
			url string
			sum *spell
		}{{o.upstream.url, &direct}, {o.url, &through}} {
			got, err := o.run(part.url, body, clients, turn)
			if err != nil {
				return direct, through, err
			}
			part.sum.all = append(part.sum.all, got.all...)
			part.sum.cpu += got.cpu
			part.sum.allocs += got.allocs
		}
	}
	slices.Sort(direct.all)
	slices.Sort(through.all)
	return direct, through, nil
}

// run sends n requests from so many clients.
func (o *overhead) run(url, body string, clients, n int) (spell, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used := cpu()
	all := make([]time.Duration, n)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && failed.Load() == nil; i = next.Add(1) - 1 {
				began := time.Now()
				if err := post(o.client, strings.TrimSuffix(url, "/")+"/chat/completions", body); err != nil {
					failed.Store(&err)
				}
				all[i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	s := spell{all: all, cpu: cpu() - used}
	runtime.ReadMemStats(&after)
	s.allocs = after.Mallocs - before.Mallocs
	if err := failed.Load(); err != nil {
		return s, *err
	}
	return s, nil
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
