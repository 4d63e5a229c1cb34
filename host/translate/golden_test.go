package translate_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata")

// golden runs make on each archive of a folder and compares what it returns, by
// file name, with what the archive holds.
func golden(t *testing.T, folder string, make func(t *testing.T, in map[string]string) map[string]string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives in %s: %v", folder, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range a.Files {
				files[f.Name] = string(f.Data)
			}
			got := make(t, files)
			if *update {
				write(t, path, a, got)
				return
			}
			for name, want := range got {
				if files[name] != want {
					t.Errorf("%s:\n got %s\nwant %s", name, want, files[name])
				}
			}
		})
	}
}

func write(t *testing.T, path string, a *txtar.Archive, got map[string]string) {
	t.Helper()
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "out.") })
	names := []string{}
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got[name])})
	}
	if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pretty indents JSON, so that a golden can be read.
func pretty(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return out.String() + "\n"
}

// TestCall holds a model call in the words of both APIs. An archive has
// request.json, context.json and steps.json, of which the last two may be absent,
// and tools: NAME PLUGIN TOOL.
func TestCall(t *testing.T) {
	golden(t, "call", func(t *testing.T, in map[string]string) map[string]string {
		t.Helper()
		c := callOf(t, in)
		out := map[string]string{}
		for name, say := range map[string]func(translate.Call) ([]byte, error){
			"out.chat": translate.ChatRequest, "out.responses": translate.ResponsesRequest,
		} {
			b, err := say(c)
			if err != nil {
				out[name] = err.Error() + "\n"
				continue
			}
			out[name] = pretty(t, b)
		}
		return out
	})
}

func callOf(t *testing.T, in map[string]string) translate.Call {
	t.Helper()
	r, err := response.ParseRequest([]byte(in["request.json"]))
	if err != nil {
		t.Fatal(err)
	}
	c := translate.Call{Brief: response.Brief{Request: r}}
	if s := in["context.json"]; s != "" {
		if err := json.Unmarshal([]byte(s), &c.Brief.Context); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(in["tools"]) {
		f := strings.Fields(line)
		c.Tools = append(c.Tools, response.ServerTool{
			Offer: response.Offer{Name: f[0], Plugin: f[1], Tool: f[2]}, Description: "does " + f[2],
			Parameters: json.RawMessage(`{"type":"object"}`),
		})
	}
	var steps []struct {
		Model                      *response.ModelOutput
		Call, Plugin, Tool, Output string
		Input                      string
		Failed                     bool
	}
	if s := in["steps.json"]; s != "" {
		if err := json.Unmarshal([]byte(s), &steps); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range steps {
		st := response.Step{Ordinal: i, State: response.Completed, Kind: response.ModelCall}
		if s.Model != nil {
			st.Output, st.Usage = s.Model.Encode(), s.Model.Usage
		} else {
			st.Kind, st.CallID, st.Plugin, st.Tool = response.ToolCall, s.Call, s.Plugin, s.Tool
			st.Input, st.Output, st.Class = []byte(s.Input), []byte(s.Output), queue.OK
		}
		if s.Failed {
			st.State, st.Verdict, st.Class, st.Output = response.Failed, response.Final, queue.GuestTrap, nil
		}
		c.Steps = append(c.Steps, st)
	}
	return c
}

// TestAnswer holds what an upstream's answer amounts to: the events of a stream,
// one a line, or with body.json a whole one. The archive's name begins with the
// kind of its API.
func TestAnswer(t *testing.T) {
	golden(t, "answer", func(t *testing.T, in map[string]string) map[string]string {
		t.Helper()
		r := translate.NewChatReader("k")
		if strings.HasPrefix(filepath.Base(t.Name()), "responses") {
			r = translate.NewResponsesReader("k")
		}
		var said strings.Builder
		tell := func(deltas []response.Delta, err error) {
			for _, d := range deltas {
				said.Write(append(encode(t, d), '\n'))
			}
			if err != nil {
				said.WriteString(err.Error() + "\n")
			}
		}
		for line := range strings.Lines(in["events"]) {
			tell(r.Chunk([]byte(line)))
		}
		if b := in["body.json"]; b != "" {
			tell(r.Body([]byte(b)))
		}
		out := map[string]string{"out.deltas": said.String()}
		o, err := r.Output()
		if err != nil {
			out["out.output"] = err.Error() + "\n" + pretty(t, encode(t, r.Usage()))
			return out
		}
		out["out.output"] = pretty(t, o.Encode())
		return out
	})
}

// encode returns v as JSON; of a delta only what is set.
func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := v.(response.Delta); !ok {
		return b
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range m {
		if v == nil || v == "" || v == 0.0 {
			delete(m, k)
		}
	}
	return encode(t, m)
}

// TestClient holds a client's chat completion served by an upstream that speaks
// Responses: chat.json and what it becomes, events or body.json and what the
// client gets.
func TestClient(t *testing.T) {
	golden(t, "client", func(t *testing.T, in map[string]string) map[string]string {
		t.Helper()
		out := map[string]string{}
		if b, err := translate.ChatAsResponses([]byte(in["chat.json"])); err != nil {
			out["out.request"] = err.Error() + "\n"
		} else {
			out["out.request"] = pretty(t, b)
		}
		if in["events"]+in["body.json"] == "" {
			return out
		}
		w := translate.NewChatWriter("chatcmpl-1", "m", 7, strings.Contains(in["chat.json"], "include_usage"), "k")
		var said strings.Builder
		tell := func(chunks [][]byte) {
			for _, c := range chunks {
				said.Write(append(c, '\n'))
			}
		}
		for line := range strings.Lines(in["events"]) {
			chunks, err := w.Event([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			tell(chunks)
		}
		if b := in["body.json"]; b != "" {
			if err := w.Body([]byte(b)); err != nil {
				t.Fatal(err)
			}
			tell(w.Chunks())
		}
		out["out.chunks"] = said.String()
		b, err := w.Completion()
		if err != nil {
			t.Fatal(err)
		}
		out["out.completion"] = pretty(t, b)
		return out
	})
}
