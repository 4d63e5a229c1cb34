// Package tool is what the author of a tool plugin imports. A plugin is a
// main package that names itself and registers typed functions while it is
// initialised; main itself is empty and never runs:
//
//	func init() {
//		tool.Plugin("greeter", "0.1.0", "Greets people.")
//		tool.Register(tool.Tool{Name: "greet", Description: "Greets one person.", Effects: tool.Pure}, greet)
//	}
//
//	type args struct {
//		Name string `json:"name" jsonschema:"whom to greet"`
//	}
//
//	func greet(_ tool.Context, a args) (string, error) { return "Hello, " + a.Name + "!", nil }
//
//	func main() {}
//
// It is built by
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags=-w -trimpath -o greeter.wasm .
//
// Every call finds the plugin as it was after initialisation and warm-up: a
// package variable that a handler changes is not seen by the next call, and
// generators of package math/rand give every call the same numbers. State goes
// through Context.KV, chance comes from Context.Rand. A plugin that must do
// something before each call all the same, like seeding a generator of its
// own, exports it itself, and every call pays for it:
//
//	//go:wasmexport on_restore
//	func onRestore() int32 { seed(); return 0 }
//
// Package tool grants nothing: what a call may do is the operator's word.
package tool

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
	"github.com/casemate/casemate/sdk/internal/schema"
)

// What a second try of a call may do; see abi.Effects. A Tool that says
// nothing is Once.
const (
	Pure       = abi.EffectsPure
	Idempotent = abi.EffectsIdempotent
	Once       = abi.EffectsOnce
)

// Tool describes one tool to the model and to the host.
type Tool struct {
	Name        string // 1 to 64 of a-z, A-Z, 0-9, _ and -
	Description string // for the model: what it does and when to use it
	Effects     abi.Effects
	Timeout     time.Duration // 0: the host's default
	// Parameters replaces the JSON Schema that is inferred from the argument
	// struct. Arguments are then decoded without being checked first.
	Parameters json.RawMessage
}

// Reply may be the result type of a handler that needs more than one value.
type Reply struct {
	Output  any               // as a handler's result otherwise is
	Content []json.RawMessage // content parts, which the model is given as JSON where Output is nil
	IsError bool              // the model sees Output as an error
}

// Plugin names the plugin; version is a semantic version like "0.1.0". A
// plugin that is a policy too says the same in both packages, or says it once.
func Plugin(name, version, description string) { registered.reg.Name(name, version, description) }

// Want asks for capabilities by op string: abi.OpKVGet, abi.OpKVPut. What is
// not asked for is never granted.
func Want(ops ...string) { registered.reg.Want(ops...) }

// ConfigOf declares that the operator's configuration of the plugin has the
// form of struct C. Context.Config reads it.
func ConfigOf[C any]() {
	s, err := schema.Of(reflect.TypeFor[C]())
	if err != nil {
		registered.reg.Mistake(fmt.Errorf("config: %w", err))
		return
	}
	registered.reg.ConfigSchema(mustJSON(s))
}

// Register adds a tool. Args is a struct: the JSON Schema of the parameters
// comes from its fields, and arguments that break it are answered with
// InvalidArgs before handle is called. A field is named by its json tag,
// required unless that says omitempty or omitzero, described by a jsonschema
// tag, and limited to some values by an enum tag:
//
//	Unit string `json:"unit,omitempty" jsonschema:"unit of the answer" enum:"celsius,kelvin"`
//
// A string result is given to the model as it is, any other as its JSON. A
// mistake in a registration is reported when the host loads the plugin.
func Register[Args, Result any](t Tool, handle func(Context, Args) (Result, error)) {
	register(&registered, t, handle)
}

// WarmUp asks the host to call a tool with made-up arguments, of the type that
// its handler takes, before it takes the image that each call starts from. The
// call has no powers, and no error of it matters; what it leaves in memory,
// caches for one, every call finds. Go guests do much in their first call that
// later ones find done, so each tool has a warm-up by default, which reads
// arguments and writes a result without its handler: WarmUp replaces that.
func WarmUp(tool string, arguments any) {
	text, err := json.Marshal(arguments)
	if err != nil {
		registered.reg.Mistake(fmt.Errorf("warm-up of %s: %w", tool, err))
		return
	}
	registered.reg.WarmUp(tool, true, abi.WarmUp{Tool: tool, Arguments: text})
}

// set is what one plugin has registered.
type set struct {
	reg   *guest.Registry
	tools map[string]handler
}

// registered is the set of the module: exports take no receiver.
var registered = set{reg: guest.Process(), tools: make(map[string]handler)}

// handler is one tool: run makes a call, rehearse does what comes before and
// after the author's function, without it.
type handler struct {
	run      func(ctx Context, arguments []byte) (any, error)
	rehearse func(arguments []byte) any
}

func register[Args, Result any](s *set, t Tool, handle func(Context, Args) (Result, error)) {
	parameters, check := t.Parameters, (*schema.Schema)(nil)
	if parameters == nil {
		inferred, err := schema.Of(reflect.TypeFor[Args]())
		if err != nil {
			s.reg.Mistake(fmt.Errorf("tool %s: %w", t.Name, err))
			return
		}
		parameters, check = mustJSON(inferred), inferred
	}
	s.reg.Tool(abi.ToolDescriptor{
		Name: t.Name, Description: t.Description, Parameters: parameters,
		Effects: t.Effects, TimeoutMS: millis(t.Timeout),
	})
	s.reg.Serve(abi.ExportToolCall, s.call)
	decode := func(arguments []byte) (args Args, err error) {
		if check != nil {
			if err := check.Check(arguments); err != nil {
				return args, InvalidArgs("%w", err)
			}
		}
		if err := json.Unmarshal(arguments, &args); err != nil {
			return args, InvalidArgs("%w", err)
		}
		return args, nil
	}
	s.tools[t.Name] = handler{
		run: func(ctx Context, arguments []byte) (any, error) {
			args, err := decode(arguments)
			if err != nil {
				return nil, err
			}
			return handle(ctx, args)
		},
		rehearse: func(arguments []byte) any {
			_, _ = decode(arguments) // made up, so it may be refused
			var nothing Result
			return nothing
		},
	}
	if check != nil {
		s.reg.WarmUp(t.Name, false, abi.WarmUp{Tool: t.Name, Arguments: check.Example()})
	}
}

// call answers one tool_call.
func (s *set) call(h guest.Host) error {
	var in abi.ToolCall
	if err := json.Unmarshal(h.Input(), &in); err != nil {
		return fmt.Errorf("tool_call: %w", err)
	}
	handle, ok := s.tools[in.Tool]
	if !ok {
		return NotFound("no tool %q in this plugin", in.Tool)
	}
	if len(in.Arguments) == 0 {
		in.Arguments = json.RawMessage("{}")
	}
	result, err := s.answer(handle, Context{host: h, call: in.Call, config: in.Config}, in)
	if err != nil {
		return err
	}
	out, err := encode(result)
	if err != nil {
		return fmt.Errorf("result of %s: %w", in.Tool, err)
	}
	if err := h.Write(out); err != nil {
		// Told to the model, since a smaller question may have a smaller answer.
		return Permanent("result of %s, %d bytes: %w", in.Tool, len(out), err)
	}
	return nil
}

// answer makes the call. A warm-up that the author did not ask for does not
// reach the author's function: what that keeps in memory, every call would
// find.
func (s *set) answer(handle handler, ctx Context, in abi.ToolCall) (any, error) {
	if in.WarmUp && !s.reg.OwnWarmUp(in.Tool) {
		return handle.rehearse(in.Arguments), nil
	}
	return handle.run(ctx, in.Arguments)
}

// encode returns the JSON of an abi.ToolResult. It puts the parts together
// itself: encoding/json reads again what a json.RawMessage holds, which costs a
// large output as much fuel as making it.
func encode(result any) ([]byte, error) {
	reply, ok := result.(Reply)
	if !ok {
		reply = Reply{Output: result}
	}
	out := []byte(`{"v":1`)
	if reply.Output != nil || len(reply.Content) == 0 {
		output, err := json.Marshal(reply.Output)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"output":`...), output...)
	}
	if len(reply.Content) > 0 {
		content, err := json.Marshal(reply.Content)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"content":`...), content...)
	}
	if reply.IsError {
		out = append(out, `,"is_error":true`...)
	}
	return append(out, '}'), nil
}

// mustJSON encodes an inferred schema, which holds nothing that JSON lacks.
func mustJSON(s *schema.Schema) json.RawMessage {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return text
}
