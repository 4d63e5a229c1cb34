package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Agent is a tool that is a model with instructions and tools of its own.
type Agent struct {
	Name          string
	Description   string
	Parameters    []byte // a JSON Schema of an object; nil: one string, input
	Model         string // a Model.Name
	Instructions  string
	Tools         []string // "plugin", "plugin/tool" or "agents/name"
	MaxModelCalls int      // in one call of the agent; 0: the host's own limit
}

// MCP is what clients may do with MCP servers of their own choice.
type MCP struct {
	HTTP []HTTPRule // which servers they may name; none: none
}

// Files bound what clients upload.
type Files struct {
	MaxBytes int64 // of one file
}

// Batches bound the batches of requests.
type Batches struct {
	MaxLines int           // of one batch
	Keep     time.Duration // of those that ended, with their files
}

// What is written of a request on the default path, and when.
const (
	recordBefore = "before"
	recordAfter  = "after"
	recordOff    = "off"
)

// servingSettings are those of what is served beside the queue.
var servingSettings = []setting{
	{"record", "!!str !!bool", func(r *reader, v string, _ bool) (err error) {
		r.file.Record, err = record(v)
		return err
	}},
	{"files.max_bytes", quantityTags, func(r *reader, v string, _ bool) error {
		n, err := fileSize.parse(v)
		r.file.Files.MaxBytes = int64(n)
		return err
	}},
	whole("batches.max_lines", 10_000_000, func(f *File) *int { return &f.Batches.MaxLines }),
	{"batches.keep", durationTags, func(r *reader, v string, _ bool) (err error) {
		r.file.Batches.Keep, err = parseDuration(v, time.Minute, 10*365*24*time.Hour)
		return err
	}},
}

var fileSize = quantity{bytesOf, 1 << 10, 1 << 40, "512MiB"}

// record reads when a request is written. YAML takes off for false.
func record(v string) (string, error) {
	if v == "false" {
		v = recordOff
	}
	return v, oneOf(v, recordBefore, recordAfter, recordOff)
}

// recorded reads the record key of a model.
func (r *reader) recorded(dst *string) value {
	return func(n *yaml.Node, path string) {
		v, ok := r.scalar(n, path, "!!str !!bool")
		if !ok {
			return
		}
		var err error
		if *dst, err = record(v); err != nil {
			r.wrong(r.at(n, path), "%w", err)
		}
	}
}

// agentTool is what an agent may use: a plugin, one of its tools, or an agent.
var agentTool = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64})?$`)

func (r *reader) agent(n *yaml.Node, path string, seen *names) {
	var a Agent
	r.object(n, path, map[string]value{
		"name":            r.name(&a.Name, seen, toolName),
		"description":     r.text(&a.Description, checkText),
		"parameters":      r.schema(&a.Parameters),
		"model":           r.text(&a.Model, matches(modelName)),
		"instructions":    r.text(&a.Instructions, checkProse),
		"tools":           r.texts(&a.Tools, matches(agentTool)),
		"max_model_calls": r.count(&a.MaxModelCalls),
	})
	r.needs(n, path, "name", "description", "model")
	r.later = append(r.later, func() {
		if a.Model != "" && !slices.ContainsFunc(r.file.Models, func(m Model) bool { return m.Name == a.Model }) {
			r.wrong(r.at(n, join(path, "model")), "no model is named %s", brief(a.Model))
		}
		for _, t := range a.Tools {
			name, ok := strings.CutPrefix(t, "agents/")
			if ok && !slices.ContainsFunc(r.file.Agents, func(o Agent) bool { return o.Name == name }) {
				r.wrong(r.at(n, join(path, "tools")), "no agent is named %s", brief(name))
			}
		}
	})
	r.file.Agents = append(r.file.Agents, a)
}

// checkProse allows lines, which checkText does not.
func checkProse(s string) error {
	if strings.ContainsRune(s, 0) || len(s) > 256<<10 {
		return errors.New("want at most 256 KiB of text")
	}
	return nil
}

// schema reads a JSON Schema that is written as YAML.
func (r *reader) schema(dst *[]byte) value {
	return func(n *yaml.Node, path string) {
		var v map[string]any
		err := n.Decode(&v)
		if err == nil && v["type"] != "object" {
			err = errors.New("want a JSON Schema of type: object")
		}
		var data []byte
		if err == nil {
			data, err = json.Marshal(v)
		}
		if err != nil {
			r.wrong(r.at(n, path), "%w", fmt.Errorf("want a JSON Schema: %w", err))
			return
		}
		*dst = data
	}
}

// mcp reads which servers clients may name.
func (r *reader) mcp(n *yaml.Node, path string) {
	r.object(n, path, map[string]value{
		"http": r.list(func(n *yaml.Node, path string) {
			h := r.rule(n, path)
			if !has(n, "methods") { // those that the protocol needs
				h.Methods = []string{"GET", "POST", "DELETE"}
			}
			r.file.MCP.HTTP = append(r.file.MCP.HTTP, h)
		}),
	})
}
