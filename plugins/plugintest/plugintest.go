// Package plugintest is the conformance kit: it tells whether a module is a
// good tool or policy, and why not. It runs the module in the sandbox that a
// host runs it in, with made-up state and no network, and needs no host.
package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	Problem Level = "problem" // the module breaks the contract
	Remark  Level = "remark"  // it works, though it could work better
)

// Finding is one thing that the kit found.
type Finding struct {
	Level Level
	Check string // which check: "load", "tool add", "purity", …
	// Text says what is wrong and what to do. It may hold what the guest said:
	// it is for the module's owner.
	Text string
}

// String returns the finding as a line.
func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Level, f.Check, f.Text) }

// Options say what is checked beyond what every module must do. The zero value
// works.
type Options struct {
	// Cases are expected calls of a tool, or expected decisions of a policy.
	Cases Cases
	// HTTP sends the requests of http.fetch/1; nil: none is allowed.
	HTTP capability.HTTP
}

// Report is what the kit learned of a module.
type Report struct {
	Descriptor abi.Descriptor // zero when the module could not be loaded
	Findings   []Finding
	Calls      int // that were made
}

// OK reports whether there is no problem.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Problem })
}

// Check runs all checks on a module. The error is the host's or ctx's, never
// the module's.
func Check(ctx context.Context, wasm []byte, o Options) (_ Report, err error) {
	m, err := plugins.New(ctx, plugins.Options{Breaker: plugins.Breaker{Deaths: -1}})
	if err != nil {
		return Report{}, fmt.Errorf("plugintest: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	k := &kit{ctx: ctx, wasm: wasm, http: o.HTTP}
	// Two images, made independently: what differs between them would differ
	// between two hosts.
	for range 2 {
		p, err := m.Load(ctx, "module", wasm)
		switch {
		case errors.Is(err, plugins.ErrRefused):
			return Report{Findings: []Finding{{Problem, "load", refusal(err)}}}, nil
		case err != nil:
			return Report{}, fmt.Errorf("plugintest: %w", err)
		}
		k.images = append(k.images, p)
	}
	k.run(o.Cases)
	if err := ctx.Err(); err != nil {
		return Report{}, fmt.Errorf("plugintest: %w", err)
	}
	return Report{Descriptor: k.images[0].Descriptor(), Findings: k.found, Calls: k.calls}, nil
}

// refusal is all that the owner of a module may know of why it was refused.
func refusal(err error) string {
	var l *plugins.LoadError
	if !errors.As(err, &l) {
		return err.Error()
	}
	if l.GuestText == "" {
		return l.Err.Error()
	}
	return l.Err.Error() + "\n" + l.GuestText
}

// kit checks one module.
type kit struct {
	ctx    context.Context
	wasm   []byte
	http   capability.HTTP
	images []*plugins.Plugin
	found  []Finding
	calls  int
}

func (k *kit) problem(check, format string, args ...any) {
	k.found = append(k.found, Finding{Problem, check, fmt.Sprintf(format, args...)})
}

func (k *kit) remark(check, format string, args ...any) {
	k.found = append(k.found, Finding{Remark, check, fmt.Sprintf(format, args...)})
}

// call makes one call on one of the images.
func (k *kit) call(image int, c plugins.Call) plugins.Result {
	k.calls++
	return k.images[image].Call(k.ctx, within(k.images[image].Descriptor(), c))
}

// rounds is how often each image is asked the same.
const rounds = 3

// repeat makes the same call several times on each image and returns what the
// first gave; differs names what was not the same in another. The fuel of a
// tool is not asked for: tools have a real clock, and the runtime of a guest's
// language may look at it.
func (k *kit) repeat(c func() plugins.Call) (first plugins.Result, differs string) {
	for image := range k.images {
		for round := range rounds {
			call := c()
			res, entry := k.call(image, call), call.Entry
			if image == 0 && round == 0 {
				first = res
				if res.Class == plugins.Deadline {
					return first, "" // once is long enough
				}
				continue
			}
			where := fmt.Sprintf("call %d on image %d", round+1, image+1)
			switch {
			case differs != "":
			case res.Class != first.Class:
				differs = fmt.Sprintf("%s ended in %s, the first in %s", where, res.Class, first.Class)
			case string(res.Output) != string(first.Output):
				differs = fmt.Sprintf("%s answered %s, the first %s", where, brief(res.Output), brief(first.Output))
			case said(res) != said(first):
				differs = fmt.Sprintf("%s failed with %s, the first with %s", where, brief([]byte(said(res))), brief([]byte(said(first))))
			case res.Usage.Fuel != first.Usage.Fuel && entry != abi.ExportToolCall:
				differs = fmt.Sprintf("%s used %d fuel, the first %d", where, res.Usage.Fuel, first.Usage.Fuel)
			}
		}
	}
	return first, differs
}

// said returns what a guest said of its failure, "" of any other end.
func said(res plugins.Result) string {
	if res.Fail == nil {
		return ""
	}
	return res.Fail.Code.String() + ": " + res.Fail.Text
}

func (k *kit) run(cases Cases) {
	k.module()
	d := k.images[0].Descriptor()
	k.fitting(d, cases)
	if slices.Contains(d.Kinds, abi.KindTool) {
		k.tools(d, cases.Calls)
	}
	for _, kind := range []string{abi.KindRoute, abi.KindRetry} {
		if slices.Contains(d.Kinds, kind) {
			k.policy(kind, cases.Decisions)
		}
	}
}

// fitting wants cases to be for what the plugin is: those for something else
// would be passed over, and say nothing.
func (k *kit) fitting(d abi.Descriptor, cases Cases) {
	if len(cases.Calls) > 0 && !slices.Contains(d.Kinds, abi.KindTool) {
		k.problem("cases", "they call tools, but the plugin is for %v", d.Kinds)
	}
	for _, row := range cases.Decisions {
		if kind := kindOf(row.Question); !slices.Contains(d.Kinds, kind) {
			k.problem("case "+row.Name, "it is a %s question, but the plugin is for %v", kind, d.Kinds)
		}
	}
}

// module checks what does not depend on the module's kind.
func (k *kit) module() {
	info, err := plugins.Inspect(k.wasm)
	if err == nil && info.Packed == nil {
		k.remark("pack", "it carries no descriptor: casemate plugin pack writes it in, so that it can be read without running the module")
	}
	if why := k.images[0].Unrestorable(); len(why) > 0 {
		k.remark("restore", "each call gets a fresh instance, which is slower: it uses %v, which cannot be undone between calls", why)
	}
	_, differs := k.repeat(func() plugins.Call { return plugins.Call{Entry: abi.ExportDescribe} })
	if differs != "" {
		k.problem("describe", "it is not the same every time: %s", differs)
	}
}

// brief returns JSON fit for one line of a report.
func brief(b []byte) string {
	const most = 200
	if len(b) <= most {
		return string(b)
	}
	return string(b[:most]) + "…"
}

// encode returns v as JSON. It is given nothing that has none.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("plugintest: encode %T: %v", v, err))
	}
	return b
}
