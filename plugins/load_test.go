package plugins_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

func TestLoadRefuses(t *testing.T) {
	m := newManager(t)
	bare := func(edit func(m *w.Module)) []byte {
		var m w.Module
		edit(&m)
		return m.Bytes()
	}
	tool := func(edit func(g *guest)) []byte {
		g := newGuest()
		edit(g)
		return g.Bytes()
	}
	complete := func(g *guest) {
		g.entry(abi.ExportToolCall, g.ok())
		g.describes(toolDesc)
	}
	for _, tt := range []struct {
		name string
		wasm []byte
		want []string // in the text, besides the plugin's name
	}{
		{"empty", nil, []string{"not a WebAssembly binary"}},
		{"text", []byte("#!/bin/sh\necho hello"), []string{"not a WebAssembly binary"}},
		{"component", []byte("\x00asm\x0d\x00\x01\x00rest"), []string{"component", "buildmode=c-shared"}},
		{"too large", append(w.Header(), make([]byte, 16<<20)...), []string{"16777224 bytes"}},
		{"cut off", toolGuest(func(g *guest) []byte { return g.ok() })[:200], []string{"malformed"}},
		{"invalid code", tool(func(g *guest) { g.entry(abi.ExportToolCall, w.I64(1)); g.describes(toolDesc) }), []string{"compile"}},
		{"extism", bare(func(m *w.Module) { m.Import("extism:host/env", "input_length", w.Sig("", "l")) }), []string{"extism/1 is not supported"}},
		{"wasi command", bare(func(m *w.Module) { m.Memory(1).Export("_start", m.Func(w.Sig("", ""))) }), []string{"wasi-command/1 is not supported"}},
		{"proxy-wasm", bare(func(m *w.Module) { m.Export("proxy_abi_version_0_2_1", m.Func(w.Sig("", ""))) }), []string{"proxy-wasm is not supported"}},
		{"nothing", w.Header(), []string{`no memory is exported as "memory"`}},
		{"no memory", bare(func(m *w.Module) {
			m.MemoryRaw([]byte{0, 1}).Export(abi.ExportMarker, m.Func(w.Sig("", "i"), w.I32(1)))
		}), []string{"no memory"}},
		{"no marker", tool(func(g *guest) { g.entry(abi.ExportToolCall, g.ok()) }), []string{abi.ExportMarker, "() → i32"}},
		{"no describe", tool(func(g *guest) { g.entry(abi.ExportMarker, w.I32(1)) }), []string{`"describe" is missing`}},
		{"no tool_call", tool(func(g *guest) { g.describes(toolDesc) }), []string{`"tool_call" is missing`, "kind tool"}},
		{"wrong signature", tool(func(g *guest) {
			g.describes(toolDesc).Export(abi.ExportToolCall, g.Func(w.Sig("i", "i"), w.I32(0)))
		}), []string{`"tool_call"`, "(i32) → i32", "want () → i32"}},
		{"entry is a memory", tool(func(g *guest) { g.describes(toolDesc).ExportRaw(abi.ExportToolCall, 2, 0) }), []string{"is a memory"}},
		{"wrong _initialize", tool(func(g *guest) {
			complete(g)
			g.Export(abi.ExportInitialize, g.Func(w.Sig("i", "")))
		}), []string{"_initialize", "want () → ()"}},
		{"unknown import", bare(func(m *w.Module) {
			m.Import("env", "system", w.Sig("i", "i"))
			m.Export(abi.ExportMarker, m.Func(w.Sig("", "i"), w.I32(1)))
		}), []string{"unknown imports: env.system"}},
		{"future import", bare(func(m *w.Module) {
			m.Import("casemate_v1", "teleport", w.Sig("i", "i"))
		}), []string{"unknown imports: casemate_v1.teleport"}},
		{"import of wrong type", bare(func(m *w.Module) {
			m.Import("casemate_v1", "input_len", w.Sig("i", "l"))
		}), []string{"casemate_v1.input_len", "(i32) → i64", "want () → i32"}},
		{"imported memory", bare(func(m *w.Module) {
			m.ImportRaw("casemate_v1", "memory", []byte{2, 0, 1})
		}), []string{"imports memory casemate_v1.memory"}},
		{"two memories", tool(func(g *guest) { complete(g); g.MemoryRaw([]byte{0, 1}) }), []string{"declares 2 memories"}},
		{"shared memory", bare(func(m *w.Module) {
			m.MemoryRaw([]byte{3, 1, 1}).ExportRaw("memory", 2, 0)
			f := m.Func(w.Sig("", "i"), w.I32(1))
			m.Export(abi.ExportMarker, f).Export(abi.ExportDescribe, f)
		}), []string{"not shared"}},
		{"huge memory", bare(func(m *w.Module) {
			m.Memory(2000)
			f := m.Func(w.Sig("", "i"), w.I32(1))
			m.Export(abi.ExportMarker, f).Export(abi.ExportDescribe, f)
		}), []string{"guest_memory", "131072000 bytes"}},
		{"huge table", tool(func(g *guest) { complete(g); g.Table(120_000_000) }), []string{"table starts with 120000000"}},
		{"start traps", tool(func(g *guest) { complete(g); g.Start(g.Func(w.Sig("", ""), w.Unreachable)) }), []string{"start", "unreachable"}},
		{"start calls the host", tool(func(g *guest) {
			complete(g)
			g.Start(g.Func(w.Sig("", ""), g.call("proc_exit", w.I32(4))))
		}), []string{"exited with code 4"}},
		{"_initialize traps", tool(func(g *guest) { complete(g); g.initialize(w.Unreachable) }), []string{"_initialize", "unreachable"}},
		{"describe traps", tool(func(g *guest) {
			g.entry(abi.ExportMarker, w.I32(1)).entry(abi.ExportDescribe, g.call(abi.ImportLog, w.I32(4), g.text("last words")), w.Unreachable)
		}), []string{"describe: guest_trap", "| last words"}},
		{"describe fails", tool(func(g *guest) {
			g.entry(abi.ExportMarker, w.I32(1))
			g.entry(abi.ExportDescribe, g.call(abi.ImportFail, w.I32(6), w.I32(-1), g.text("no name")), w.I32(1))
		}), []string{"guest_error", "no name"}},
		{"describe is silent", tool(func(g *guest) { g.entry(abi.ExportMarker, w.I32(1)).entry(abi.ExportDescribe, w.I32(0)) }), []string{"guest_invalid_output"}},
		{"describe is no json", tool(func(g *guest) { g.describes("{") }), []string{"guest_invalid_output"}},
		{"describe is no descriptor", tool(func(g *guest) { g.describes(`[1]`) }), []string{"invalid descriptor"}},
		{"bad name", tool(func(g *guest) { g.describes(strings.Replace(toolDesc, `"name":"probe"`, `"name":"Pröbe"`, 1)) }), []string{"name"}},
		{"packed differs", tool(func(g *guest) {
			complete(g)
			g.Custom(abi.Section, []byte(strings.Replace(toolDesc, "0.1.0", "0.2.0", 1)))
		}), []string{"differs from what describe returns"}},
		{"packed twice", tool(func(g *guest) {
			complete(g)
			g.Custom(abi.Section, []byte(toolDesc)).Custom(abi.Section, []byte(toolDesc))
		}), []string{"twice"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := m.Load(t.Context(), "bad.wasm", tt.wasm)
			if err == nil {
				t.Fatalf("loaded %s", p.Descriptor().Name)
			}
			if !errors.Is(err, plugins.ErrRefused) {
				t.Errorf("%v does not wrap ErrRefused", err)
			}
			for _, want := range append(tt.want, "plugins: bad.wasm: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
	// The manager is none the worse for it.
	good, err := m.Load(t.Context(), "good.wasm", toolGuest((*guest).ok))
	if err != nil {
		t.Fatal(err)
	}
	wantClass(t, good.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall}), plugins.OK)
}

func TestLoadEnds(t *testing.T) {
	m := newManager(t)
	for name, wasm := range map[string][]byte{
		"start":       spin(func(g *guest) { g.Start(g.Func(w.Sig("", ""), forever)) }),
		"_initialize": spin(func(g *guest) { g.initialize(forever) }),
		"describe":    spin(func(g *guest) {}),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := m.Load(ctx, "slow.wasm", wasm); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("load = %v, want deadline exceeded", err)
			}
		})
	}
}

// spin returns a tool whose describe never ends.
func spin(edit func(g *guest)) []byte {
	g := newGuest()
	g.entry(abi.ExportMarker, w.I32(1)).entry(abi.ExportDescribe, forever, w.I32(0)).entry(abi.ExportToolCall, w.I32(0))
	edit(g)
	return g.Bytes()
}

func TestLoad(t *testing.T) {
	g := newGuest()
	g.entry(abi.ExportToolCall, g.ok()).describes(toolDesc)
	// The same JSON, written differently.
	g.Custom(abi.Section, []byte(" "+strings.Replace(toolDesc, `{"v":1,"name":"probe"`, `{"name":"probe","v":1.0`, 1)))
	p, err := newManager(t).Load(t.Context(), "probe.wasm", g.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	d := p.Descriptor()
	if d.Name != "probe" || d.Tools[0].Effects != abi.EffectsOnce {
		t.Errorf("descriptor = %+v, want name probe and effects once", d)
	}
	if !strings.HasPrefix(p.Digest(), "sha256:") || len(p.Digest()) != 71 {
		t.Errorf("digest = %q", p.Digest())
	}
}

// TestPowersDuringInit proves that nothing can be asked for before a call.
func TestPowersDuringInit(t *testing.T) {
	g := newGuest()
	const at = 512
	ask := func() []byte {
		return w.Seq(w.I32(at), g.call(abi.ImportCall, g.text(abi.OpKVGet), g.text("")), w.I64Store,
			w.I32(at+8), g.call(abi.ImportEmit, w.I32(0), g.text("x")), w.I32Store,
			w.I32(at+16), g.call(abi.ImportInputLen), w.I32Store)
	}
	g.initialize(ask())
	print := g.printer()
	g.entry(abi.ExportToolCall, g.report(print, w.Seq(w.I32(at), w.I64Load),
		wide(w.Seq(w.I32(at+8), w.I32Load)), wide(w.Seq(w.I32(at+16), w.I32Load))))
	res := load(t, g.describes(toolDesc).Bytes()).Call(t.Context(), plugins.Call{
		Entry: abi.ExportToolCall, Input: []byte("secret"), Env: kvEnv(nil),
	})
	if got := string(res.Output); got != "[-63,-63,0]" {
		t.Errorf("call, emit, input_len in _initialize = %s, want [-63,-63,0]", got)
	}
}

func TestInitLogsBelongToTheCall(t *testing.T) {
	g := newGuest()
	g.initialize(g.call(abi.ImportLog, w.I32(2), g.text("starting")))
	g.entry(abi.ExportToolCall, g.call(abi.ImportLog, w.I32(2), g.text("running")), g.ok())
	res := load(t, g.describes(toolDesc).Bytes()).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})
	if len(res.Logs) != 2 || res.Logs[0].Text != "starting" || res.Logs[1].Text != "running" {
		t.Errorf("logs = %q", res.Logs)
	}
}
