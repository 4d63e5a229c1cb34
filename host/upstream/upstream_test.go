package upstream_test

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

// config has one alias "m" with the target "up/real" at base.
func config(base string) upstream.Config {
	return upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: base, APIKey: "sk-secret"}},
		Models:    []upstream.Model{{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}}},
	}
}

func client(t testing.TB, c upstream.Config) *upstream.Client {
	t.Helper()
	cl, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestNewRefuses(t *testing.T) {
	tests := map[string]func(c *upstream.Config){
		"no such upstream": func(c *upstream.Config) { c.Models[0].Targets[0].Upstream = "other" },
		"no model":         func(c *upstream.Config) { c.Models[0].Targets[0].Model = "" },
		"weight":           func(c *upstream.Config) { c.Models[0].Targets[0].Weight = math.NaN() },
		"limit":            func(c *upstream.Config) { c.Models[0].Targets[0].Limit = -1 },
		"no targets":       func(c *upstream.Config) { c.Models[0].Targets = nil },
		"target twice":     func(c *upstream.Config) { c.Models[0].Targets = append(c.Models[0].Targets, c.Models[0].Targets[0]) },
		"alias twice":      func(c *upstream.Config) { c.Models = append(c.Models, c.Models[0]) },
		"upstream twice":   func(c *upstream.Config) { c.Upstreams = append(c.Upstreams, c.Upstreams[0]) },
		"slash in name":    func(c *upstream.Config) { c.Upstreams[0].Name = "a/b" },
		"scheme":           func(c *upstream.Config) { c.Upstreams[0].BaseURL = "file:///secret" },
		"no URL":           func(c *upstream.Config) { c.Upstreams[0].BaseURL = "" },
		"credentials":      func(c *upstream.Config) { c.Upstreams[0].BaseURL = "http://user:secret@host/v1" },
		"query":            func(c *upstream.Config) { c.Upstreams[0].BaseURL = "http://host/v1?key=secret" },
		"key":              func(c *upstream.Config) { c.Upstreams[0].APIKey = "secret\r\nX: y" },
		"negative limit":   func(c *upstream.Config) { c.Idle = -1 },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			c := config("http://host/v1")
			edit(&c)
			_, err := upstream.New(c)
			if err == nil {
				t.Fatal("got no error")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

func TestModelsAndCandidates(t *testing.T) {
	c := config("http://host/v1/")
	c.Models = append(c.Models, upstream.Model{Name: "a", Targets: []upstream.Target{
		{Upstream: "up", Model: "org/x", Weight: 2, Limit: 3},
		{Upstream: "up", Model: "real"},
	}})
	cl := client(t, c)
	if got := strings.Join(cl.Models(), " "); got != "a m" {
		t.Errorf("models: got %q, want \"a m\"", got)
	}
	if !cl.Has("a") || cl.Has("up/real") || cl.Candidates("nobody") != nil {
		t.Error("Has or Candidates know a model that is no alias, or not one that is")
	}
	got := cl.Candidates("a")
	if len(got) != 2 || got[0].Target != "up/org/x" || got[0].Weight != 2 || got[0].Limit != 3 || !got[0].Healthy ||
		got[1].Target != "up/real" || got[1].Weight != 1 || got[1].Upstream != "up" || got[1].Model != "real" {
		t.Errorf("got %+v", got)
	}
}

// TestHealth lets a target answer as told and looks at its candidate.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next reply
		c := config("http://host/v1")
		c.HTTP = fake(func(*call) reply { return next })
		cl := client(t, c)
		var last *upstream.Error
		do := func(r reply) {
			next = r
			last = do(t, cl, plainBody, nil)
		}
		now := func() (healthy bool, rate float64, cooldown time.Duration) {
			a := cl.Candidates("m")[0]
			return a.Healthy, a.ErrorRate, time.Duration(a.CooldownMS) * time.Millisecond
		}

		do(reply{body: answer, delay: 200 * time.Millisecond})
		if got := cl.Candidates("m")[0].LatencyMS; got != 200 {
			t.Errorf("latency: got %v ms, want 200", got)
		}
		do(reply{status: 400})
		do(reply{status: 404})
		if healthy, rate, cooldown := now(); !healthy || rate != 0 || cooldown != 0 {
			t.Errorf("after the client's faults: got %v, %v, %v; want a good target", healthy, rate, cooldown)
		}
		do(reply{status: 429, header: map[string]string{"Retry-After": "7"}})
		if healthy, rate, cooldown := now(); !healthy || rate != 0.2 || cooldown != 7*time.Second {
			t.Errorf("after a 429: got %v, %v, %v; want healthy, 0.2, 7s", healthy, rate, cooldown)
		}
		time.Sleep(30 * time.Second)
		if _, rate, cooldown := now(); rate < 0.099 || rate > 0.101 || cooldown != 0 {
			t.Errorf("half a minute later: got %v, %v; want 0.1, 0", rate, cooldown)
		}
		do(reply{status: 401})
		if _, _, cooldown := now(); cooldown != 30*time.Second {
			t.Errorf("after a 401: got %v, want 30s", cooldown)
		}
		do(reply{body: answer})
		for range 3 {
			do(reply{status: 502})
		}
		if healthy, _, _ := now(); healthy {
			t.Error("after three failures in a row: got healthy")
		}
		time.Sleep(6 * time.Second)
		if healthy, _, _ := now(); !healthy {
			t.Error("some seconds later: got unhealthy, want it tried again")
		}
		for range 5 {
			do(reply{status: 429, header: map[string]string{"Retry-After": "3600"}})
		}
		if healthy, _, cooldown := now(); !healthy || cooldown != time.Hour {
			t.Errorf("after many 429: got %v, %v; want healthy, cooling for an hour", healthy, cooldown)
		}
		time.Sleep(time.Hour)
		do(reply{status: 503, header: map[string]string{"Retry-After": "3600"}})
		if _, _, cooldown := now(); cooldown != 5*time.Minute {
			t.Errorf("after a 503 for an hour: got %v, want 5m", cooldown)
		}
		time.Sleep(time.Hour)
		if do(reply{status: 429}); last.Class != queue.RateLimited || last.RetryAfter >= 0 {
			t.Errorf("got %+v, want a rate limit without a wait", last)
		}
	})
}
