package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// Granted returns every tool loaded now, by plugin and name, under its bare name.
func (c *Catalog) Granted() []response.ServerTool {
	var all []response.ServerTool
	for name, m := range c.tools.Load().modules {
		for _, t := range m.descriptor.Tools {
			all = append(all, serverTool(m, t, response.Offer{Name: t.Name, Plugin: name, Tool: t.Name}))
		}
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].Plugin < all[j].Plugin || all[i].Plugin == all[j].Plugin && all[i].Tool < all[j].Tool
	})
	return all
}

// Resolve implements loop.Tools. Offers whose plugin or tool is not loaded any
// more are left out.
func (c *Catalog) Resolve(tenant string, offers []response.Offer) loop.Toolset {
	set := &toolset{catalog: c, tenant: tenant, modules: map[string]*module{}}
	shelf := c.tools.Load()
	for _, o := range offers {
		m, ok := shelf.modules[o.Plugin]
		if !ok {
			continue
		}
		t, ok := m.tool(o.Tool)
		if !ok {
			continue
		}
		if set.modules[o.Plugin] == nil {
			m.hold()
			set.modules[o.Plugin] = m
		}
		tool := serverTool(m, t, o)
		tool.Timeout = wall(t, set.limits(m))
		set.tools = append(set.tools, tool)
	}
	return set
}

func serverTool(m *module, t abi.ToolDescriptor, o response.Offer) response.ServerTool {
	return response.ServerTool{
		Offer: o, Description: t.Description, Parameters: t.Parameters, Effects: m.effects(t),
		Generation: m.digest, Timeout: wall(t, m.limits),
	}
}

// toolset is the modules of one attempt, held until Release.
type toolset struct {
	catalog *Catalog
	tenant  string
	modules map[string]*module
	tools   []response.ServerTool
}

func (s *toolset) Tools() []response.ServerTool { return s.tools }

func (s *toolset) Release() {
	for _, m := range s.modules {
		m.release()
	}
	s.modules = nil
}

// limits returns those of m's calls for the tenant: what was configured for it,
// else for the plugin.
func (s *toolset) limits(m *module) plugins.Limits {
	return s.catalog.options.TenantLimits(s.tenant, m.descriptor.Name).Over(m.limits)
}

// maxCheckText bounds what the model is told of its arguments' mistake.
const maxCheckText = 500

func (s *toolset) Check(t response.ServerTool, arguments []byte) error {
	m := s.modules[t.Plugin]
	if m == nil || m.schemas[t.Tool] == nil {
		return nil
	}
	if err := m.schemas[t.Tool].Check(arguments); err != nil {
		text := "arguments: " + strings.ToValidUTF8(err.Error(), "")
		if len(text) > maxCheckText {
			text = strings.ToValidUTF8(text[:maxCheckText], "")
		}
		return errors.New(text)
	}
	return nil
}

// Call implements loop.Toolset.
func (s *toolset) Call(ctx context.Context, c loop.ToolCall) loop.ToolResult {
	m := s.modules[c.Tool.Plugin]
	if m == nil {
		return loop.ToolResult{Class: queue.PluginUnavailable, RetryAfter: -1}
	}
	input, err := json.Marshal(abi.ToolCall{V: abi.Version, Tool: c.Tool.Tool, Arguments: c.Arguments, Call: c.Info})
	if err != nil {
		return loop.ToolResult{Class: queue.HostError, RetryAfter: -1, Generation: m.digest}
	}
	p := s.powers(m)
	defer p.release()
	audit := auditor{set: s, m: m, info: c.Info}
	limits := s.limits(m)
	t, _ := m.tool(c.Tool.Tool)
	limits.Wall = wall(t, limits)
	r := m.plugin.Call(ctx, plugins.Call{
		Entry: abi.ExportToolCall, Input: input, Limits: limits, Nested: c.Depth > 0,
		Env: capability.Env{
			Tenant: s.tenant, Granted: p.granted, HTTP: p.http, KV: pluginKV{s.catalog.kv, s.tenant, m.descriptor.Name},
			Tools: nested{c.Nested}, Effect: effect(c.Effect), Audit: audit.refused,
		},
	})
	audit.done()
	out := loop.ToolResult{
		Class: queue.Class(r.Class), RetryAfter: -1, Generation: m.digest, Fuel: r.Usage.Fuel, Used: used(r.Usage),
		Detail: record(r.Detail, response.MaxDetail), Log: logText(r.Logs, r.Usage.LogsDropped),
	}
	switch {
	case r.Class == plugins.OK:
		succeeded(&out, r, m.descriptor.Name)
	case r.Fail != nil:
		failed(&out, *r.Fail)
	}
	return out
}

// used is what the row of a step keeps of a call's use.
func used(u plugins.Usage) response.Used {
	return response.Used{
		WallMS: u.Wall.Milliseconds(), Memory: u.Memory, Output: u.Output, Log: u.LogBytes, HostCalls: u.HostCalls,
	}
}

// succeeded reads the result of a call that ended well.
func succeeded(out *loop.ToolResult, r plugins.Result, plugin string) {
	text, isError, err := readResult(r.Output)
	switch {
	case err != nil:
		out.Class = queue.GuestInvalidOutput
	case isError:
		// The tool says itself that it could not: the model is told, and what
		// the call wrote goes with the call.
		out.Class, out.Code, out.Output = queue.GuestError, abi.FailPermanent.String(), text
	default:
		out.Output = text
		for _, p := range r.Puts {
			out.KV = append(out.KV, store.KVPut{
				Plugin: plugin, Key: p.Key, Value: p.Value, Delete: p.Delete, TTL: p.TTL,
				Checked: p.Checked, Had: p.Had, Was: p.Was,
			})
		}
	}
}

// failed reads what a guest said of its failure. An internal failure's text is
// its owner's business, not the model's.
func failed(out *loop.ToolResult, f plugins.Failure) {
	out.Code, out.RetryAfter = f.Code.String(), f.RetryAfter
	if f.Code == abi.FailInternal {
		return
	}
	out.Output = string(response.ErrorOutput(out.Code, f.Text))
}

// readResult returns the text that the model is given for a tool's output.
func readResult(output []byte) (text string, isError bool, err error) {
	var r abi.ToolResult
	if err := json.Unmarshal(output, &r); err != nil {
		return "", false, err
	}
	if r.V != abi.Version {
		return "", false, fmt.Errorf("guest: result has \"v\":%d; want %d", r.V, abi.Version)
	}
	if len(r.Output) == 0 {
		if len(r.Content) == 0 {
			return "", false, errors.New("guest: result has neither output nor content")
		}
		content, err := json.Marshal(r.Content)
		return string(content), r.IsError, err
	}
	if r.Output[0] == '"' && json.Unmarshal(r.Output, &text) == nil {
		return text, r.IsError, nil
	}
	return string(r.Output), r.IsError, nil
}
