package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

// serve runs a host until a signal stops it.
func serve(ctx context.Context, a app, o options, _ []string) error {
	// Signals count from the first moment: opening a store and compiling
	// modules may take seconds.
	stops, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(stops, os.Interrupt, syscall.SIGTERM)
	signal.Notify(reloads, syscall.SIGHUP)
	defer signal.Stop(stops)
	defer signal.Stop(reloads)

	c, err := host.LoadConfig(o.config, a.environ, nil)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h, err := start(ctx, c, stops, stop)
	if err != nil {
		return err
	}
	announce(a.stdout, h.Addr(), c)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	r := reloader{host: h, path: o.config, environ: a.environ, log: c.Logger, wanted: make(chan struct{}, 1)}
	wg.Go(func() { r.run(ctx) })
	if o.config != "" {
		wg.Go(func() {
			if err := watch(ctx, o.config, c.Logger, r.want); err != nil {
				c.Logger.Warn("the configuration file is not watched; SIGHUP still works", "error", err)
			}
		})
	}
	var first time.Time // signal to stop
	ended := make(chan error, 1)
	wg.Go(func() { ended <- h.Run(ctx) })
	for {
		select {
		case err := <-ended:
			return err
		case <-reloads:
			r.want()
		case s := <-stops:
			if ctx.Err() != nil && time.Since(first) < sameSignal {
				continue // some senders signal a process and its group
			}
			if ctx.Err() != nil {
				c.Logger.Warn("stopping at once", "signal", s.String())
				h.Stop()
				continue
			}
			c.Logger.Info("stopping: running requests may end; a second signal stops at once", "signal", s.String())
			first = time.Now()
			stop()
		}
	}
}

// sameSignal is how soon after the first a signal is no second one.
const sameSignal = 300 * time.Millisecond

// start makes the host; a signal on stops in the meantime calls stop.
func start(ctx context.Context, c host.Config, stops <-chan os.Signal, stop func()) (*host.Host, error) {
	var h *host.Host
	done := make(chan error, 1)
	go func() {
		var err error
		h, err = host.New(ctx, c)
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return h, err
		case <-stops:
			stop()
		}
	}
}

// reloader reads the configuration again and gives it to the host.
type reloader struct {
	host    *host.Host
	path    string
	environ []string
	log     hclog.Logger
	wanted  chan struct{} // of length 1: more wishes are the same wish
}

// want asks for a reload.
func (r *reloader) want() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// run reloads as often as it is wanted, until ctx ends.
func (r *reloader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		}
		c, err := host.LoadConfig(r.path, r.environ, r.log)
		if err == nil {
			err = r.host.Reload(ctx, c)
		}
		if err != nil {
			r.log.Error("reload: the configuration stays as it was where it is wrong", "error", err)
			continue
		}
		r.log.Info("configuration reloaded", "file", r.path)
	}
}

// announce tells where the host is and how to ask it something.
func announce(w io.Writer, addr net.Addr, c host.Config) {
	base := "http://" + reachable(addr)
	key := ""
	if len(c.Tenants) > 0 {
		key = ` -H "Authorization: Bearer $API_KEY"`
	}
	fmt.Fprintf(w, "casemate is up at %s\n\n  curl -sS %s/v1/responses -H 'Content-Type: application/json'%s -d '%s'\n\n",
		base, base, key, fmt.Sprintf(`{"model":%q,"input":"What is 6*7?"}`, c.Models[0].Name))
}

// reachable returns addr as a client on this machine dials it.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
