package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// ErrNoTool is wrapped when a module does not have the tool that was asked for.
var ErrNoTool = errors.New("plugintest: no such tool")

// Run loads a module and calls one of its tools once, with every capability
// that it wants over an empty state, and no network. Arguments are a JSON
// object.
func Run(ctx context.Context, wasm []byte, tool string, arguments json.RawMessage) (res plugins.Result, err error) {
	err = loaded(ctx, wasm, func(p *plugins.Plugin) error {
		if err := hasTool(p.Descriptor(), tool); err != nil {
			return err
		}
		res = p.Call(ctx, within(p.Descriptor(), toolCall(tool, arguments, newState(p.Descriptor()))))
		return nil
	})
	return res, err
}

// Measure is what calls of one plugin cost here and now. Only figures of one
// run on one machine compare.
type Measure struct {
	What           string // was called
	Class          plugins.Class
	Calls          int
	Load           time.Duration // rewrite, compile, start, warm-up, snapshot
	Median, P99    time.Duration // of a call, restore included
	FuelLo, FuelHi uint64
	Memory         uint64 // linear memory, bytes
	Idle           uint64 // bytes that an instance holds between calls, about
	Unrestorable   []string
}

// Bench loads a module and makes the same call n times. Without a tool it asks
// a policy its largest question, or calls the first tool with its first
// warm-up input, or with {}. n is from 1 to MaxCalls.
func Bench(ctx context.Context, wasm []byte, tool string, arguments json.RawMessage, n int) (m Measure, err error) {
	begin := time.Now()
	err = loadedWith(ctx, wasm, func(mgr *plugins.Manager, p *plugins.Plugin) error {
		m.Load = time.Since(begin)
		call, what, err := benchCall(p.Descriptor(), tool, arguments)
		if err != nil {
			return err
		}
		m.What, m.Unrestorable = what, p.Unrestorable()
		if err := m.measure(ctx, p, call, n); err != nil {
			return err
		}
		if s := mgr.Stats(); s.Idle > 0 {
			m.Idle = s.IdleBytes / uint64(s.Idle)
		}
		return nil
	})
	return m, err
}

// MaxCalls is the most calls of one Bench: it keeps the time of each.
const MaxCalls = 10_000_000

// measure makes the calls.
func (m *Measure) measure(ctx context.Context, p *plugins.Plugin, call plugins.Call, n int) error {
	if n < 1 || n > MaxCalls {
		return fmt.Errorf("plugintest: bench: %d calls: want 1 to %d", n, MaxCalls)
	}
	took := make([]time.Duration, 0, n)
	for len(took) < n {
		begin := time.Now()
		res := p.Call(ctx, call)
		took = append(took, time.Since(begin))
		if ctx.Err() != nil {
			return fmt.Errorf("plugintest: bench: %w", ctx.Err())
		}
		if len(took) == 1 {
			m.Class, m.FuelLo = res.Class, res.Usage.Fuel
		}
		m.FuelLo, m.FuelHi = min(m.FuelLo, res.Usage.Fuel), max(m.FuelHi, res.Usage.Fuel)
		m.Memory = max(m.Memory, res.Usage.Memory)
	}
	slices.Sort(took)
	m.Calls, m.Median, m.P99 = n, took[n/2], took[n*99/100]
	return nil
}

// benchCall returns the call to be measured, and its name.
func benchCall(d abi.Descriptor, tool string, arguments json.RawMessage) (plugins.Call, string, error) {
	if tool == "" && !slices.Contains(d.Kinds, abi.KindTool) {
		if arguments != nil {
			return plugins.Call{}, "", errors.New("plugintest: bench: a policy is asked its largest question: it takes no arguments")
		}
		if slices.Contains(d.Kinds, abi.KindRoute) {
			return LargestQuestion(abi.KindRoute), "the largest route question", nil
		}
		return LargestQuestion(abi.KindRetry), "the largest retry question", nil
	}
	if tool == "" {
		tool = d.Tools[0].Name
		if warm := warmUps(d, tool); arguments == nil && len(warm) > 0 {
			arguments = warm[0]
		}
	}
	if err := hasTool(d, tool); err != nil {
		return plugins.Call{}, "", err
	}
	c := within(d, toolCall(tool, arguments, newState(d)))
	if arguments == nil {
		arguments = json.RawMessage("{}")
	}
	return c, tool + " with " + brief(arguments), nil
}

func hasTool(d abi.Descriptor, tool string) error {
	var names []string
	for _, t := range d.Tools {
		if t.Name == tool {
			return nil
		}
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: %q: the plugin is a policy and has none", ErrNoTool, tool)
	}
	return fmt.Errorf("%w: %q: it has %s", ErrNoTool, tool, strings.Join(names, ", "))
}

func loaded(ctx context.Context, wasm []byte, use func(*plugins.Plugin) error) error {
	return loadedWith(ctx, wasm, func(_ *plugins.Manager, p *plugins.Plugin) error { return use(p) })
}

// loadedWith loads a module for as long as use runs.
func loadedWith(ctx context.Context, wasm []byte, use func(*plugins.Manager, *plugins.Plugin) error) (err error) {
	m, err := plugins.New(ctx, plugins.Options{Breaker: plugins.Breaker{Deaths: -1}})
	if err != nil {
		return fmt.Errorf("plugintest: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	p, err := m.Load(ctx, "module", wasm)
	if err != nil {
		return err
	}
	return use(m, p)
}
