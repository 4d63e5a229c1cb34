package loop_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// crew is a rig whose responses may call agents, whose model is "helper".
type crew struct {
	*rig
	agents []response.AgentBrief
	shown  []string // tools that the root is offered; the agents say their own
}

// newCrew makes a rig with scripts by instructions: those of the root are "".
func newCrew(t *testing.T, scripts map[string]demo.Script, o loop.Options) *crew {
	return newCrewAt(t, onSQLite, scripts, o)
}

// newCrewAt is newCrew on a database.
func newCrewAt(t *testing.T, d database, scripts map[string]demo.Script, o loop.Options) *crew {
	c := &crew{rig: newRigAt(t, d, func(n int, req demo.Request) demo.Turn {
		script := scripts[instructions(req.Body)]
		if script == nil {
			return demo.Turn{Status: 500, ErrorBody: "no script"}
		}
		return script(n, req)
	}, o)}
	c.change = func(j *response.Brief, _ *queue.New) {
		j.Agents, j.Offers = c.agents, nil
		for _, name := range c.shown {
			j.Offers = append(j.Offers, c.offer(name))
		}
	}
	return c
}

// offer is a tool's, or with "agents/" in front of its name an agent's.
func (c *crew) offer(name string) response.Offer {
	if agent, ok := strings.CutPrefix(name, response.AgentLabel+"/"); ok {
		return response.Offer{Name: agent, Plugin: response.AgentLabel, Tool: agent}
	}
	return response.Offer{Name: name, Plugin: plugin, Tool: name}
}

// agent adds an agent whose instructions are its name.
func (c *crew) agent(name string, tools ...string) {
	a := response.AgentBrief{Name: name, Model: "helper", Instructions: name}
	for _, tool := range tools {
		a.Offers = append(a.Offers, c.offer(tool))
	}
	c.agents = append(c.agents, a)
}

// chat is a request to the model as far as the tests look.
type chat struct {
	Model     string `json:"model"`
	MaxTokens int64  `json:"max_tokens"`
	Messages  []struct {
		Role string `json:"role"`
		Text any    `json:"content"`
	} `json:"messages"`
	Tools []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
}

func asked(body []byte) chat {
	var c chat
	_ = json.Unmarshal(body, &c)
	return c
}

// said returns what a role says first in a request.
func (c chat) said(role string) string {
	for _, m := range c.Messages {
		if s, ok := m.Text.(string); ok && m.Role == role {
			return s
		}
	}
	return ""
}

func instructions(body []byte) string { return asked(body).said("system") }

func (c chat) tools() string {
	var all []string
	for _, t := range c.Tools {
		all = append(all, t.Function.Name)
	}
	return strings.Join(all, " ")
}

// says answers with a text.
func says(text string) demo.Script {
	return func(int, demo.Request) demo.Turn { return demo.Turn{Text: text, ChunkRunes: 3} }
}

// once answers an effect, once.
func (r *rig) effect(n *counter) func(context.Context, loop.ToolCall) loop.ToolResult {
	return func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Effect(ctx) != nil {
			return stopped(ctx)
		}
		n.run(c)
		return ok("done")
	}
}

// enqueue queues a background response and reads it to its end.
func (r *rig) enqueue() store.Record {
	r.Helper()
	n, events := r.brief(`{"model":"m","input":"hello","background":true}`)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	if err := r.claimer.Enqueue(r.Context(), store.Write{Insert: &n, Events: events}); err != nil {
		r.Fatal(err)
	}
	r.events(l)
	return r.record(n.ID)
}
