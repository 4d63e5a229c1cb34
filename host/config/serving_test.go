package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const servingFile = `upstreams:
  - {name: up, kind: responses, base_url: "https://models.example/v1"}
models:
  - name: m
    targets: [{upstream: up, model: x}]
    record: off
    context_window: 128000
agents:
  - name: researcher
    description: Looks things up.
    model: m
    instructions: |
      Look it up.
      Then answer.
    tools: [fetch, calculator/add, agents/helper]
    max_model_calls: 3
    parameters: {type: object, properties: {topic: {type: string}}, required: [topic]}
  - {name: helper, description: Helps., model: m}
mcp:
  http:
    - {host: tools.example}
    - {host: 127.0.0.1, scheme: http, port: 9000, private: true, methods: [POST]}
files: {max_bytes: 1GiB}
batches: {max_lines: 5000, keep: 240h}
record: after
`

func TestLoadReadsWhatIsServed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(servingFile), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u := f.Upstreams[0]; u.Kind != "responses" || f.Record != "after" || f.Files.MaxBytes != 1<<30 || f.Batches.MaxLines != 5000 || f.Batches.Keep != 240*time.Hour {
		t.Errorf("got %+v, record %q, %+v, %+v", u, f.Record, f.Files, f.Batches)
	}
	if m := f.Models[0]; m.Record != "off" || m.ContextWindow != 128000 {
		t.Errorf("got model %+v", m)
	}
	want := []Agent{
		{
			Name: "researcher", Description: "Looks things up.", Model: "m", Instructions: "Look it up.\nThen answer.\n",
			Tools: []string{"fetch", "calculator/add", "agents/helper"}, MaxModelCalls: 3,
			Parameters: []byte(`{"properties":{"topic":{"type":"string"}},"required":["topic"],"type":"object"}`),
		},
		{Name: "helper", Description: "Helps.", Model: "m"},
	}
	if !reflect.DeepEqual(f.Agents, want) {
		t.Errorf("got agents %+v, want %+v", f.Agents, want)
	}
	rules := []HTTPRule{
		{Scheme: "https", Host: "tools.example", Path: "/", Methods: []string{"GET", "POST", "DELETE"}},
		{Scheme: "http", Host: "127.0.0.1", Port: 9000, Path: "/", Private: true, Methods: []string{"POST"}},
	}
	if !reflect.DeepEqual(f.MCP.HTTP, rules) {
		t.Errorf("got rules %+v, want %+v", f.MCP.HTTP, rules)
	}
}

func TestWrongServing(t *testing.T) {
	for was, is := range map[string][2]string{
		"record: after":             {"record: later", `"later": want before, after or off`},
		"model: m\n    instr":       {"model: n\n    instr", `agents[0].model: no model is named "n"`},
		"agents/helper]":            {"agents/helpr]", `agents[0].tools: no agent is named "helpr"`},
		"- {name: helper":           {"- {name: researcher", `"researcher" is there twice`},
		"{type: object, prop":       {"{type: string, prop", "want a JSON Schema of type: object"},
		"context_window: 128000":    {"context_window: many", "want a whole number from 1 to 1G"},
		"max_bytes: 1GiB":           {"max_bytes: 1", "want a whole number from 1KiB"},
		"description: Helps.,":      {"", "agents[1].description: is missing"},
		"{host: tools.example}":     {"{host: https://x}", "mcp.http[0].host"},
		"kind: responses, base_url": {"kind: response, base_url", "want chat, responses, demo or openai"},
	} {
		text := strings.Replace(servingFile, was, is[0], 1)
		if text == servingFile {
			t.Fatalf("%q is not in the file", was)
		}
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), is[1]) {
			t.Errorf("%q: got %v, want %s", is[0], err, is[1])
		}
	}
}
