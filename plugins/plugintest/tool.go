package plugintest

import (
	"encoding/json"
	"strings"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// tools checks every tool of the plugin, and then the expected calls.
func (k *kit) tools(d abi.Descriptor, calls []ToolCase) {
	for _, t := range d.Tools {
		check := "tool " + t.Name
		res, differs := k.repeat(func() plugins.Call { return toolCall(t.Name, nil, newState(d)) })
		k.survived(check, "called with {}", res)
		if t.Effects == abi.EffectsPure && differs != "" {
			k.problem(check, "it declares that it is pure, but with the same arguments %s: "+
				"declare idempotent or once, or take clock and entropy out of it", differs)
		}
		k.survived(check, "called without any capability", k.call(0, toolCall(t.Name, nil, nil)))
		k.survived(check, "called with 256 KiB of arguments", k.call(0, toolCall(t.Name, large, newState(d))))
		k.extended(check, t, d)
	}
	k.unknownTool(d)
	state := newState(d)
	for _, c := range calls {
		k.expected(c, state)
	}
}

// large is 256 KiB of arguments that no schema asks for.
var large = encode(map[string]string{"casemate_conformance": strings.Repeat("x", 256<<10)})

// survived wants a call to end by the guest's own return.
func (k *kit) survived(check, how string, res plugins.Result) {
	switch res.Class {
	case plugins.OK, plugins.Failed:
	case plugins.Output:
		k.remark(check, "%s, its output is over the cap: %s", how, res.Detail)
	default:
		k.problem(check, "%s it ended in %s: %s: report what is wrong with fail instead", how, res.Class, res.Detail)
	}
}

// extended adds a field to the envelope that the guest cannot know.
func (k *kit) extended(check string, t abi.ToolDescriptor, d abi.Descriptor) {
	plain := toolCall(t.Name, nil, newState(d))
	var envelope map[string]any
	if err := json.Unmarshal(plain.Input, &envelope); err != nil {
		panic("plugintest: envelope: " + err.Error())
	}
	envelope["casemate_future"] = map[string]int{"v": 2}
	more := plain
	more.Input, more.Env = encode(envelope), newState(d).env()
	a, b := k.call(0, plain), k.call(0, more)
	if a.Class != b.Class {
		k.problem(check, "an unknown field in its input makes it end in %s instead of %s: unknown fields are to be ignored", b.Class, a.Class)
	}
}

// unknownTool calls a tool that the plugin does not have.
func (k *kit) unknownTool(d abi.Descriptor) {
	const check, name = "unknown tool", "casemate_no_such_tool"
	res := k.call(0, toolCall(name, nil, newState(d)))
	if res.Class == plugins.OK {
		k.problem(check, "it answers a call of a tool that it does not have: report not_found with fail")
		return
	}
	k.survived(check, "called for a tool that it does not have", res)
}

// expected makes one expected call, in the state that those before it left.
func (k *kit) expected(c ToolCase, s *state) {
	check := "case " + c.Name
	res := k.call(0, toolCallWithKey(c.Tool, c.Arguments, c.IdempotencyKey, s))
	s.apply(res.Puts)
	if c.Error != "" {
		code := string(res.Class)
		text := res.Detail
		if res.Fail != nil {
			code, text = res.Fail.Code.String(), res.Fail.Text
		}
		if code != c.Error || !strings.Contains(text, c.Text) {
			k.problem(check, "got %s (%s), want %s with %q in its text", code, text, c.Error, c.Text)
		}
		return
	}
	var out abi.ToolResult
	switch {
	case res.Class != plugins.OK:
		k.problem(check, "got %s: %s, want output %s", res.Class, res.Detail, brief(c.Output))
	case json.Unmarshal(res.Output, &out) != nil || out.V != abi.Version || out.IsError:
		k.problem(check, "got %s, want output %s", brief(res.Output), brief(c.Output))
	case !sameJSON(out.Output, c.Output):
		k.problem(check, "got output %s, want %s", brief(out.Output), brief(c.Output))
	}
}

// toolCall returns a call of a tool in a state; nil arguments are {}, nil
// state is a tool without any capability.
func toolCall(tool string, arguments json.RawMessage, s *state) plugins.Call {
	return toolCallWithKey(tool, arguments, "conformance//1", s)
}

func toolCallWithKey(tool string, arguments json.RawMessage, key string, s *state) plugins.Call {
	c := plugins.Call{Entry: abi.ExportToolCall, Input: ToolInput(tool, arguments, key)}
	if s != nil {
		c.Env = s.env()
	}
	c.Env.Tenant = conformance
	return c
}

const conformance = "conformance"

// ToolInput returns the envelope of a call that no response asked for. Nil
// arguments are {}.
func ToolInput(tool string, arguments json.RawMessage, idempotencyKey string) []byte {
	if arguments == nil {
		arguments = json.RawMessage("{}")
	}
	return encode(abi.ToolCall{
		V: abi.Version, Tool: tool, Arguments: arguments,
		Call: abi.CallInfo{
			ResponseID: "resp_conformance", Step: "/1", Attempt: 1, IdempotencyKey: idempotencyKey,
			Tenant: conformance, Model: conformance, DeadlineInMS: 30_000,
		},
	})
}

// Env returns an environment for a call of a plugin outside of any host: each
// capability that the plugin wants is granted, over an empty state and with
// neither a network nor other tools behind it.
func Env(d abi.Descriptor) capability.Env { return newState(d).env() }
