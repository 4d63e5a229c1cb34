package endtoend_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/response"
)

// user is what a user says.
func user(text string) map[string]any {
	return map[string]any{"type": "message", "role": "user", "content": text}
}

func said(role, text, phase string) map[string]any {
	m := map[string]any{"type": "message", "role": role, "content": text}
	if phase != "" {
		m["phase"] = phase
	}
	return m
}

// weatherTool leaves out strict, as clients may.
var weatherTool = map[string]any{
	"type": "function", "name": "get_weather", "description": "Get the current weather for a location",
	"parameters": map[string]any{
		"type": "object", "properties": map[string]any{"location": map[string]any{"type": "string"}}, "required": []string{"location"},
	},
}

// complianceScript answers a question for the weather with a call.
func complianceScript(_ int, r demo.Request) demo.Turn {
	if bytes.Contains(r.Body, []byte(`"get_weather"`)) && bytes.Contains(r.Body, []byte("San Francisco")) {
		return demo.Turn{Calls: []demo.Call{{ID: "call_1", Name: "get_weather", Arguments: `{"location":"San Francisco, CA"}`}}}
	}
	return demo.Turn{Text: "Hello there, friend."}
}

// TestCompliance asserts what the compliance tests of the Open Responses
// specification (release 2026-04-24) assert. As they do, it starts all of them
// at once against one host.
func TestCompliance(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		h := newRig(t, url, complianceScript).start()
		c := compliance{h}
		t.Run("all", func(t *testing.T) {
			for name, test := range map[string]func(*testing.T){
				"basic-response":    c.plain([]any{user("Say hello in exactly 3 words.")}),
				"assistant-phase":   c.plain([]any{user("Hi"), said("assistant", "Let me think.", "commentary"), said("assistant", "Hello.", "final_answer"), user("Thanks")}),
				"system-prompt":     c.plain([]any{said("system", "You are a pirate.", ""), user("Say hello.")}),
				"multi-turn":        c.plain([]any{user("My name is Alice."), said("assistant", "Hello Alice!", ""), user("What is my name?")}),
				"image-input":       c.plain([]any{map[string]any{"type": "message", "role": "user", "content": []any{map[string]any{"type": "input_text", "text": "What is this?"}, map[string]any{"type": "input_image", "image_url": pixel}}}}),
				"tool-calling":      c.toolCalling,
				"streaming":         c.streaming,
				"compact":           c.compact,
				"compact, no model": c.compactWithoutModel,

				"websocket-response":                           c.webSocketResponse,
				"websocket-sequential-responses":               c.webSocketSequential,
				"websocket-continuation":                       c.webSocketContinuation,
				"websocket-reconnect-store-false-recovery":     c.webSocketReconnect,
				"websocket-previous-response-not-found":        c.webSocketNotFound,
				"websocket-failed-continuation-evicts-cache":   c.webSocketEvicts,
				"websocket-compact-new-chain":                  c.webSocketCompact,
				"schema of a response with a phase, a fixture": phaseSchema,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t)
				})
			}
		})
	})
}

// pixel is an image of one pixel.
const pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// compliance is one host under test.
type compliance struct{ h *host }

// call posts a body and returns status and answer.
func (c compliance) call(t *testing.T, path string, body map[string]any) (int, []byte) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(c.h.url+path, "application/json", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

// seen is what tests look at in a response.
type seen struct {
	ID     string            `json:"id"`
	Object string            `json:"object"`
	Status string            `json:"status"`
	Output []json.RawMessage `json:"output"`
}

func (a seen) types() []string {
	var types []string
	for _, raw := range a.Output {
		var item struct{ Type string }
		_ = json.Unmarshal(raw, &item) // no type is one that no test wants
		types = append(types, item.Type)
	}
	return types
}

// checkResponse holds a response object against the schema.
func checkResponse(t *testing.T, data []byte, status string) seen {
	t.Helper()
	for _, w := range wrong(data, responseObject.check) {
		t.Error(w)
	}
	var a seen
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	if status != "" && a.Status != status || len(a.Output) == 0 {
		t.Errorf("status %s with %d items: %s", a.Status, len(a.Output), data)
	}
	return a
}

func (c compliance) plain(input []any) func(*testing.T) {
	return func(t *testing.T) {
		status, data := c.call(t, "/v1/responses", map[string]any{"model": "m", "input": input})
		if status != http.StatusOK {
			t.Fatalf("%d: %s", status, data)
		}
		checkResponse(t, data, "completed")
	}
}

func (c compliance) toolCalling(t *testing.T) {
	_, data := c.call(t, "/v1/responses", map[string]any{
		"model": "m", "input": []any{user("What's the weather like in San Francisco?")}, "tools": []any{weatherTool},
	})
	if a := checkResponse(t, data, ""); !slices.Contains(a.types(), "function_call") {
		t.Errorf("no function_call in %s", data)
	}
}

func (c compliance) streaming(t *testing.T) {
	data, err := json.Marshal(map[string]any{"model": "m", "stream": true, "input": []any{user("Count from 1 to 5.")}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(c.h.url+"/v1/responses", "application/json", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %s", kind)
	}
	events := readStream(t, res.Body)
	checkEventSchema(t, events)
	checkResponse(t, terminalOf(t, events), "completed")
}

// readStream reads a whole event stream and checks its form: an event line that
// is the type, one data line, LF only, [DONE] at the end.
func readStream(t *testing.T, r io.Reader) [][]byte {
	t.Helper()
	var events [][]byte
	kind, done := "", false
	for s := bufio.NewScanner(bufio.NewReaderSize(r, 1<<20)); s.Scan(); {
		line := s.Text()
		switch value, isData := strings.CutPrefix(line, "data: "); {
		case strings.HasSuffix(line, "\r"):
			t.Errorf("a line ends with CR: %q", line)
		case done && line != "":
			t.Errorf("after [DONE]: %q", line)
		case strings.HasPrefix(line, "event: "):
			kind = line[len("event: "):]
		case isData && value == "[DONE]":
			done = true
		case isData:
			var e struct{ Type string }
			if err := json.Unmarshal([]byte(value), &e); err != nil || e.Type != kind {
				t.Errorf("event %q holds %s: %v", kind, value, err)
			}
			events = append(events, []byte(value))
		case line != "":
			t.Errorf("line %q", line)
		}
	}
	if !done {
		t.Error("no [DONE]")
	}
	return events
}

// checkEventSchema checks each event, and all of them as a stream.
func checkEventSchema(t *testing.T, events [][]byte) {
	t.Helper()
	if len(events) == 0 {
		t.Fatal("no events")
	}
	var v response.Validator
	for _, e := range events {
		for _, w := range wrong(e, event) {
			t.Errorf("%s in %s", w, e)
		}
		if err := v.Event(e); err != nil {
			t.Error(err)
		}
	}
	if err := v.End(); err != nil {
		t.Error(err)
	}
}

// terminalOf returns the response of the last event.
func terminalOf(t *testing.T, events [][]byte) []byte {
	t.Helper()
	var last struct {
		Response json.RawMessage `json:"response"`
	}
	if len(events) == 0 || json.Unmarshal(events[len(events)-1], &last) != nil || last.Response == nil {
		t.Fatalf("the last of %d events has no response", len(events))
	}
	return last.Response
}

var compaction = keys{"id": str, "object": oneOf("response.compaction"), "created_at": integer, "output": list(outputItem), "usage": usage.check}

func (c compliance) compact(t *testing.T) { c.compacted(t) }

// compacted returns the output of a compaction.
func (c compliance) compacted(t *testing.T) []json.RawMessage {
	t.Helper()
	status, data := c.call(t, "/v1/responses/compact", map[string]any{
		"model": "m", "prompt_cache_key": "k", "input": []any{user("My name is Alice."), said("assistant", "Hello Alice!", "")},
	})
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, data)
	}
	for _, w := range wrong(data, compaction.check) {
		t.Error(w)
	}
	var a seen
	if err := json.Unmarshal(data, &a); err != nil || !slices.Contains(a.types(), "compaction") {
		t.Errorf("no compaction in %s: %v", data, err)
	}
	return a.Output
}

func (c compliance) compactWithoutModel(t *testing.T) {
	status, data := c.call(t, "/v1/responses/compact", map[string]any{"input": []any{user("hello")}})
	if status != http.StatusBadRequest && status != http.StatusUnprocessableEntity {
		t.Errorf("%d: %s", status, data)
	}
}

func phaseSchema(t *testing.T) {
	const item = `{"type":"message","id":"msg_1","status":"completed","role":"assistant","phase":"final_answer","content":[{"type":"output_text","text":"hi","annotations":[]}]}`
	for _, w := range wrong([]byte(item), outputItem) {
		t.Error(w)
	}
}

// socket is one WebSocket connection.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

func (c compliance) connect(t *testing.T) socket {
	t.Helper()
	header := http.Header{"Authorization": {"Bearer " + apiKey}}
	conn, res, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(c.h.url, "http")+"/v1/responses", &websocket.DialOptions{HTTPHeader: header})
	if res != nil && res.Body != nil {
		_ = res.Body.Close() // the connection is conn's
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(16 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return socket{t, conn}
}

// turn sends a create and returns the response that ended it, or the code of
// the error.
func (s socket) turn(create map[string]any) (ended []byte, code string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	create["type"], create["model"] = "response.create", "m"
	data, err := json.Marshal(create)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.conn.Write(ctx, websocket.MessageText, data); err != nil {
		s.t.Fatal(err)
	}
	var v response.Validator
	for {
		kind, frame, err := s.conn.Read(ctx)
		if err != nil || kind != websocket.MessageText {
			s.t.Fatalf("frame of kind %v: %v", kind, err)
		}
		var e struct {
			Type     string          `json:"type"`
			Status   int             `json:"status"`
			Response json.RawMessage `json:"response"`
			Error    struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal(frame, &e); err != nil {
			s.t.Fatal(err)
		}
		if e.Type == "error" {
			if e.Error.Code == "" || e.Status < 400 {
				s.t.Errorf("error without code or status: %s", frame)
			}
			return nil, e.Error.Code
		}
		for _, w := range wrong(frame, event) {
			s.t.Errorf("%s in %s", w, frame)
		}
		if err := v.Event(frame); err != nil {
			s.t.Error(err)
		}
		switch e.Type {
		case "response.completed", "response.failed", "response.incomplete":
			return e.Response, ""
		}
	}
}

// completed is a turn that completes; it returns the response's id.
func (s socket) completed(create map[string]any) string {
	s.t.Helper()
	data, code := s.turn(create)
	if code != "" {
		s.t.Fatalf("error %s", code)
	}
	return checkResponse(s.t, data, "completed").ID
}

func (c compliance) webSocketResponse(t *testing.T) {
	c.connect(t).completed(map[string]any{"input": []any{user("Say hello.")}})
}

func (c compliance) webSocketSequential(t *testing.T) {
	s := c.connect(t)
	for range 2 {
		s.completed(map[string]any{"store": false, "input": []any{user("Say hello.")}})
	}
}

func (c compliance) webSocketContinuation(t *testing.T) {
	s := c.connect(t)
	id := s.completed(map[string]any{"store": false, "input": []any{user("Remember 42.")}})
	s.completed(map[string]any{"store": false, "previous_response_id": id, "input": []any{user("Which number?")}})
	last := c.h.r.upstream.Requests()
	if !slices.ContainsFunc(last, func(r demo.Request) bool {
		return bytes.Contains(r.Body, []byte("Remember 42.")) && bytes.Contains(r.Body, []byte("Which number?"))
	}) {
		t.Error("the model was not shown the first turn in the second")
	}
}

func (c compliance) webSocketReconnect(t *testing.T) {
	id := c.connect(t).completed(map[string]any{"store": false, "input": []any{user("hello")}})
	s := c.connect(t)
	s.notFound(map[string]any{"store": false, "previous_response_id": id, "input": []any{user("again")}})
	s.completed(map[string]any{"store": false, "input": []any{user("afresh")}})
}

func (s socket) notFound(create map[string]any) {
	s.t.Helper()
	if _, code := s.turn(create); code != "previous_response_not_found" {
		s.t.Errorf("got %q, want previous_response_not_found", code)
	}
}

func (c compliance) webSocketNotFound(t *testing.T) {
	c.connect(t).notFound(map[string]any{
		"store": false, "previous_response_id": "resp_00000000000000000000000000000000", "input": []any{user("hello")},
	})
}

func (c compliance) webSocketEvicts(t *testing.T) {
	s := c.connect(t)
	id := s.completed(map[string]any{"store": false, "input": []any{user("hello")}})
	data, code := s.turn(map[string]any{"store": false, "previous_response_id": id, "input": []any{
		map[string]any{"type": "function_call_output", "call_id": "call_unknown", "output": "x"},
	}})
	if code == "" && checkResponse(t, data, "failed").Status != "failed" {
		t.Errorf("an output of no call is taken: %s", data)
	}
	s.notFound(map[string]any{"store": false, "previous_response_id": id, "input": []any{user("again")}})
}

func (c compliance) webSocketCompact(t *testing.T) {
	input := []any{}
	for _, item := range c.compacted(t) {
		input = append(input, item)
	}
	c.connect(t).completed(map[string]any{"tools": []any{}, "input": append(input, user("What is my name?"))})
}

// TestComplianceSchemas holds the schemas against what they are to refuse.
func TestComplianceSchemas(t *testing.T) {
	const good = `{"type":"response.output_text.delta","sequence_number":3,"output_index":0,"item_id":"msg_1","content_index":0,"delta":"x"}`
	if w := wrong([]byte(good), event); len(w) > 0 {
		t.Errorf("a good event is refused: %v", w)
	}
	for _, bad := range []string{
		`{"type":"response.mcp_call.in_progress","sequence_number":3,"output_index":0,"item_id":"mcp_1"}`,
		strings.Replace(good, `"delta":"x"`, `"delta":null`, 1), strings.Replace(good, `,"item_id":"msg_1"`, "", 1),
		strings.Replace(good, `"sequence_number":3`, `"sequence_number":3.5`, 1), `{"type":"response.created","sequence_number":0,"response":{}}`,
	} {
		if w := wrong([]byte(bad), event); len(w) == 0 {
			t.Errorf("taken for an event: %s", bad)
		}
	}
	if w := wrong([]byte(`{}`), responseObject.check); len(w) != len(responseObject) {
		t.Errorf("of %d keys that an empty object lacks, these are said: %v", len(responseObject), fmt.Sprint(w))
	}
}
