package plugintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// tools checks every tool of the plugin, and then the expected calls.
func (k *kit) tools(d abi.Descriptor, calls []ToolCase) {
	for _, t := range d.Tools {
		check := "tool " + t.Name
		for _, arguments := range append(warmUps(d, t.Name), json.RawMessage("{}")) {
			res, differs := k.repeat(func() plugins.Call { return toolCall(t.Name, arguments, k.state()) })
			k.survived(check, "called with "+brief(arguments), res)
			if t.Effects == abi.EffectsPure && differs != "" {
				k.problem(check, "it declares that it is pure, but with the same arguments %s: "+
					"declare idempotent or once, or take clock and entropy out of it", differs)
			}
		}
		k.survived(check, "called without any capability", k.call(0, toolCall(t.Name, nil, nil)))
		k.survived(check, "called with 256 KiB of arguments", k.call(0, toolCall(t.Name, large, k.state())))
		k.extended(check, t)
	}
	k.unknownTool()
	state := k.state()
	for _, c := range calls {
		k.expected(c, state)
	}
}

// warmUps returns the arguments of a tool's warm-up inputs.
func warmUps(d abi.Descriptor, tool string) (all []json.RawMessage) {
	for _, raw := range d.WarmUp {
		var w abi.WarmUp
		if json.Unmarshal(raw, &w) == nil && w.Tool == tool && w.Arguments != nil {
			all = append(all, w.Arguments)
		}
	}
	return all
}

// large is 256 KiB of arguments that no schema asks for.
var large = encode(map[string]string{"casemate_conformance": strings.Repeat("x", 256<<10)})

// survived wants a call to end by the guest's own return.
func (k *kit) survived(check, how string, res plugins.Result) {
	if res.Class == plugins.Failed {
		return
	}
	switch err := CheckResult(res.Output); {
	case res.Class == plugins.Output:
		k.remark(check, "%s, its output is over the cap: %s", how, res.Detail)
	case res.Class == plugins.OK && err != nil:
		k.problem(check, "%s, %v", how, err)
	case res.Class != plugins.OK:
		k.problem(check, "%s it ended in %s: %s: report what is wrong with fail instead", how, res.Class, res.Detail)
	}
}

// CheckResult reports what is wrong with the form of what a tool answered. The
// error holds no word of the guest's.
func CheckResult(output []byte) error {
	var r abi.ToolResult
	if json.Unmarshal(output, &r) != nil || r.V != abi.Version {
		return fmt.Errorf(`plugintest: a call of a tool is not answered with {"v":%d,…}`, abi.Version)
	}
	if len(r.Output) == 0 && len(r.Content) == 0 {
		return errors.New("plugintest: a tool's answer has neither output nor content")
	}
	return nil
}

// extended adds a field to the envelope that the guest cannot know.
func (k *kit) extended(check string, t abi.ToolDescriptor) {
	plain := toolCall(t.Name, nil, k.state())
	var envelope map[string]any
	if err := json.Unmarshal(plain.Input, &envelope); err != nil {
		panic("plugintest: envelope: " + err.Error())
	}
	envelope["casemate_future"] = map[string]int{"v": 2}
	more := plain
	more.Input, more.Env = encode(envelope), k.state().env()
	a, b := k.call(0, plain), k.call(0, more)
	if a.Class != b.Class {
		k.problem(check, "an unknown field in its input makes it end in %s instead of %s: unknown fields are to be ignored", b.Class, a.Class)
	}
}

// unknownTool calls a tool that the plugin does not have.
func (k *kit) unknownTool() {
	const check, name = "unknown tool", "casemate_no_such_tool"
	res := k.call(0, toolCall(name, nil, k.state()))
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

// within gives a call of a tool the time that the tool declares, as a host does.
func within(d abi.Descriptor, c plugins.Call) plugins.Call {
	if c.Entry != abi.ExportToolCall {
		return c
	}
	var called struct {
		Tool string `json:"tool"`
	}
	// The kit wrote the envelope itself.
	_ = json.Unmarshal(c.Input, &called)
	for _, t := range d.Tools {
		if t.Name == called.Tool {
			c.Limits.Wall = time.Duration(t.TimeoutMS) * time.Millisecond
		}
	}
	return c
}

// toolCall returns a call of a tool in a state; nil arguments are {}, nil
// state is a tool without any capability.
func toolCall(tool string, arguments json.RawMessage, s *state) plugins.Call {
	return toolCallWithKey(tool, arguments, "conformance//1", s)
}

func toolCallWithKey(tool string, arguments json.RawMessage, key string, s *state) plugins.Call {
	c := plugins.Call{Entry: abi.ExportToolCall, Input: toolInput(tool, arguments, key)}
	if s != nil {
		c.Env = s.env()
	}
	c.Env.Tenant = conformance
	return c
}

const conformance = "conformance"

// toolInput returns the envelope of a call that no response asked for. Nil
// arguments are {}.
func toolInput(tool string, arguments json.RawMessage, idempotencyKey string) []byte {
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
