package loop_test

import (
	"sync"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
)

// TestAgentSpendsTheResponsesTokens checks that max_output_tokens holds for the
// response as a whole: what an agent wrote is not there for its caller any more.
func TestAgentSpendsTheResponsesTokens(t *testing.T) {
	spends := func(n int64, text string) demo.Turn {
		return demo.Turn{Text: text, Usage: &demo.Usage{Input: 1, Output: n}}
	}
	for _, tt := range []struct {
		name   string
		agent  int64
		status string
		left   int64 // for the last call
	}{
		{"some", 30, "completed", 60},
		{"all", 90, "incomplete", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCrew(t, map[string]demo.Script{
				"": func(_ int, req demo.Request) demo.Turn {
					if outs := told(req.Body); len(outs) > 0 {
						return spends(10, "in the end")
					}
					turn := spends(10, "")
					turn.Calls = calls("expert " + asks)
					return turn
				},
				"expert": func(int, demo.Request) demo.Turn { return spends(tt.agent, "an answer") },
			}, loop.Options{})
			c.agent("expert")
			c.shown = []string{"agents/expert"}
			o, _, _ := c.run(`{"model":"m","input":"hello","max_output_tokens":100}`)
			got := c.object(o.Body)
			if got.Status != tt.status || tt.status == "incomplete" && got.Incomplete.Reason != "max_output_tokens" {
				t.Errorf("%s %q, want %s", got.Status, got.Incomplete.Reason, tt.status)
			}
			var left []int64
			for _, req := range c.upstream.Requests() {
				left = append(left, asked(req.Body).MaxTokens)
			}
			if left[0] != 100 || left[1] != 90 || tt.left > 0 && left[2] != tt.left || tt.left == 0 && len(left) != 2 {
				t.Errorf("the models might write %v tokens", left)
			}
		})
	}
}

// TestAgentsShareTheTokens checks that agents that run at once do not together
// write more than the response may, even if each writes all that it may.
func TestAgentsShareTheTokens(t *testing.T) {
	var mu sync.Mutex
	var given []int64
	all := make(chan struct{})
	spends := func(_ int, req demo.Request) demo.Turn {
		mu.Lock()
		defer mu.Unlock()
		n := asked(req.Body).MaxTokens
		if given = append(given, n); len(given) == 3 {
			close(all)
		}
		return demo.Turn{Text: "an answer", Usage: &demo.Usage{Input: 1, Output: n}, Gate: all}
	}
	c := newCrew(t, map[string]demo.Script{
		"": func(int, demo.Request) demo.Turn {
			return demo.Turn{Calls: calls("one "+asks, "two "+asks, "three "+asks), Usage: &demo.Usage{Input: 1, Output: 10}}
		},
		"one": spends, "two": spends, "three": spends,
	}, loop.Options{})
	for _, name := range []string{"one", "two", "three"} {
		c.agent(name)
		c.shown = append(c.shown, "agents/"+name)
	}
	_, _, id := c.run(`{"model":"m","input":"hello","max_output_tokens":100}`)
	var used int64
	for _, u := range c.record(id).Usage {
		used += u.Tokens.Output
	}
	if used != 100 || min(given[0], given[1], given[2]) != 30 {
		t.Errorf("the agents might write %v tokens, and with their caller wrote %d; want 30 each, and 100", given, used)
	}
}
