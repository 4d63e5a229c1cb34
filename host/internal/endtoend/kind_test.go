package endtoend_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/response"
)

// ownAsk is what tests look at in a request that an upstream of kind responses
// got.
type ownAsk struct {
	Store, Stream bool
	Include       []string
	Input         []struct {
		Type      string
		Output    json.RawMessage
		Encrypted string `json:"encrypted_content"`
	}
}

func readOwnAsk(t *testing.T, r demo.Request) ownAsk {
	t.Helper()
	var a ownAsk
	if err := json.Unmarshal(r.Body, &a); err != nil {
		t.Fatal(err)
	}
	if r.Path != "/v1/responses" || a.Store || !a.Stream {
		t.Errorf("asked %s with store %t and stream %t; want a stream of /v1/responses that is not kept", r.Path, a.Store, a.Stream)
	}
	return a
}

// types are those of the input, with what was encrypted.
func (a ownAsk) types() string {
	var types []string
	for _, it := range a.Input {
		types = append(types, it.Type+it.Encrypted)
	}
	return strings.Join(types, " ")
}

// ownScript thinks and calls a tool of the host, then thinks and calls one of
// the client, then says what the last tool said.
func ownScript(_ int, r demo.Request) demo.Turn {
	var a ownAsk
	_ = json.Unmarshal(r.Body, &a) // without outputs, as the first request is
	var outputs []string
	for _, it := range a.Input {
		if it.Type == "function_call_output" {
			outputs = append(outputs, string(it.Output))
		}
	}
	switch len(outputs) {
	case 0:
		return demo.Turn{Reasoning: "a tool first", Encrypted: "~one", Calls: []demo.Call{{ID: "c1", Name: "wait_again", Arguments: `{}`}}}
	case 1:
		return demo.Turn{Reasoning: "now the client's", Encrypted: "~two", Calls: []demo.Call{{ID: "c2", Name: "get_weather", Arguments: `{"location":"Oslo"}`}}}
	}
	return demo.Turn{Text: "It is " + strings.Trim(outputs[1], `"`) + ".", Usage: &demo.Usage{Input: 9, Output: 4, Cached: 3}}
}

// TestOwnKindLoop runs a tool of the host and one of the client at an upstream
// that speaks Responses: what the model thought goes back to it, unread.
func TestOwnKindLoop(t *testing.T) {
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream %t", stream), func(t *testing.T) {
			testdb.Each(t, func(t *testing.T, url string) {
				r := newRig(t, url, ownScript)
				r.kind = "responses"
				c := compliance{r.start()}
				ask := map[string]any{
					"model": "m", "input": []any{user("What is the weather?")}, "tools": []any{weatherTool}, "stream": stream,
					"reasoning": map[string]any{"effort": "low"}, "include": []string{"reasoning.encrypted_content"},
				}
				first := c.respond(t, ask)
				if got := first.types(); !slices.Equal(got, []string{"reasoning", "mcp_call", "reasoning", "function_call"}) {
					t.Fatalf("output %v", got)
				}
				ask["previous_response_id"] = first.ID
				ask["input"] = []any{map[string]any{"type": "function_call_output", "call_id": "c2", "output": "sunny"}}
				if second := c.respond(t, ask); !strings.Contains(string(second.Output[0]), "It is sunny.") {
					t.Errorf("output %s", second.Output)
				}
				reqs := r.upstream.Requests()
				if len(reqs) != 3 {
					t.Fatalf("%d calls; want 3", len(reqs))
				}
				for i, want := range []string{
					"message",
					"message reasoning~one function_call function_call_output",
					"message reasoning~one function_call function_call_output reasoning~two function_call function_call_output",
				} {
					a := readOwnAsk(t, reqs[i])
					if got := a.types(); got != want {
						t.Errorf("call %d has the input\n got %s\nwant %s", i, got, want)
					}
					if !slices.Contains(a.Include, "reasoning.encrypted_content") {
						t.Errorf("call %d includes %v", i, a.Include)
					}
				}
			})
		})
	}
}

// respond creates a response, streamed where body says so; its events are held
// against the grammar.
func (c compliance) respond(t *testing.T, body map[string]any) (got seen) {
	t.Helper()
	status, data := c.call(t, "/v1/responses", body)
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, data)
	}
	if body["stream"] == true {
		events := readStream(t, bytes.NewReader(data))
		checkGrammar(t, events)
		data = terminalOf(t, events)
	}
	if err := json.Unmarshal(data, &got); err != nil || got.Status != "completed" {
		t.Fatalf("%s, %v", data, err)
	}
	return got
}

// checkGrammar holds a whole stream against the grammar of Responses.
func checkGrammar(t *testing.T, events [][]byte) {
	t.Helper()
	var v response.Validator
	for _, e := range events {
		if err := v.Event(e); err != nil {
			t.Fatalf("%v: %s", err, e)
		}
	}
	if err := v.End(); err != nil {
		t.Error(err)
	}
}

// TestOwnKindGrammar holds what the scripted upstream says against the grammar
// of Responses: else the tests here would show little.
func TestOwnKindGrammar(t *testing.T) {
	for name, turn := range map[string]demo.Turn{
		"all":        {Reasoning: "because of this", Text: "a text that is cut", Refusal: "but no more", Calls: []demo.Call{{Name: "a", Arguments: `{"a":1}`}, {Name: "own", Arguments: "free"}}},
		"nothing":    {},
		"encrypted":  {Encrypted: "secret", Calls: []demo.Call{{Name: "a", Arguments: "{}"}}},
		"incomplete": {Text: "cut", Finish: "length"},
		"failed":     {Text: "fails", Failure: "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			srv, err := demo.Start(func(int, demo.Request) demo.Turn { return turn })
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			res, err := http.Post(srv.URL()+"/responses", "application/json", strings.NewReader(
				`{"model":"m","input":"x","stream":true,"include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"a"},{"type":"custom","name":"own"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			data, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			checkGrammar(t, readStream(t, io.MultiReader(bytes.NewReader(data), strings.NewReader("data: [DONE]\n\n"))))
		})
	}
}

// TestOwnKindKill kills the host in the middle of an answer, and again between
// two steps: what the model thought is part of what goes on.
func TestOwnKindKill(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		began, gate := make(chan struct{}, 1), make(chan struct{})
		r := newRig(t, url, func(n int, req demo.Request) demo.Turn {
			turn := ownScript(n, req)
			if n == 0 || n == 2 { // the first call of each step is lost, some events in
				turn.Gate, turn.GateAfter = gate, 6
				began <- struct{}{}
			}
			if n > 1 {
				turn.Calls, turn.Text = nil, "done"
			}
			return turn
		})
		defer close(gate)
		r.kind = "responses"
		h := r.start()
		status, v := h.post("/v1/responses", map[string]any{
			"model": "m", "input": "hello", "background": true, "reasoning": map[string]any{"effort": "low"},
		})
		if status != http.StatusOK {
			t.Fatalf("create: %d %v", status, v)
		}
		id := v["id"].(string)
		for range 2 {
			<-began
			h.kill()
			h = r.next()
		}
		if v = h.await(id); v["status"] != "completed" || text(v) != "done" {
			t.Errorf("status %v, text %q; want completed, done", v["status"], text(v))
		}
		rec := r.record(id)
		steps := settled(t, rec)
		for key, tries := range map[string]int{"/0": 2, "/1": 1, "/2": 2} {
			if steps[key].Tries != tries {
				t.Errorf("step %s has %d tries; want %d", key, steps[key].Tries, tries)
			}
		}
		reqs := r.upstream.Requests()
		if got := readOwnAsk(t, reqs[len(reqs)-1]).types(); got != "message reasoning~one function_call function_call_output" {
			t.Errorf("after the crash the input is %s", got)
		}
		checkEvents(t, rec)
	})
}

// TestOwnKindFailures shows what clients get of an upstream's failures.
func TestOwnKindFailures(t *testing.T) {
	envelope := func(code string) string { return `{"error":{"code":"` + code + `","message":"of the upstream alone"}}` }
	for _, tt := range []struct {
		name   string
		turn   demo.Turn
		status int    // of a chat completion
		code   string // of either
	}{
		{"too long", demo.Turn{Status: 400, ErrorBody: envelope("context_length_exceeded")}, 400, "context_length_exceeded"},
		{"too long, in a stream", demo.Turn{Failure: "context_length_exceeded"}, 400, "context_length_exceeded"},
		{"an event", demo.Turn{Failure: "context_length_exceeded", ErrorEvent: true}, 400, "context_length_exceeded"},
		{"a prompt", demo.Turn{Failure: "invalid_prompt"}, 400, "invalid_prompt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := "sqlite:" + t.TempDir() + "/h.db"
			r := newRig(t, url, func(int, demo.Request) demo.Turn { return tt.turn })
			r.kind = "responses"
			h := r.start()
			status, v := h.post("/v1/chat/completions", map[string]any{"model": "m", "messages": []any{user("hello")}})
			e, _ := v["error"].(map[string]any)
			if status != tt.status || e["code"] != tt.code {
				t.Errorf("chat completion: %d %v; want %d %s", status, v, tt.status, tt.code)
			}
			res := h.await(h.background("hello"))
			e, _ = res["error"].(map[string]any)
			if res["status"] != "failed" || e["code"] != tt.code {
				t.Errorf("response: %v %v; want failed, %s", res["status"], e, tt.code)
			}
			if strings.Contains(fmt.Sprint(v, res), "of the upstream alone") {
				t.Error("the upstream's words went through")
			}
		})
	}
}
