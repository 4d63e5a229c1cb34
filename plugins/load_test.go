package plugins_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
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
		{"invalid code", tool(func(g *guest) { g.entry(abi.ExportToolCall, w.I64(1)); g.describes(toolDesc) }), []string{"type mismatch: i32 expected, got i64"}},
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
		{"huge table", tool(func(g *guest) { complete(g); g.Table(120_000_000) }), []string{"tables start with more than 1048576"}},
		{"large tables", tool(func(g *guest) {
			complete(g)
			for range 3 {
				g.Table(400_000)
			}
		}), []string{"tables start with more than 1048576"}},
		{"many tables", tool(func(g *guest) {
			complete(g)
			for range 17 {
				g.Table(0)
			}
		}), []string{"declares 17 tables"}},
		{"table with an expression", bare(func(m *w.Module) { m.TableRaw([]byte{0x40, 0, 0x70, 0, 0, 0xd0, 0x70, 0x0b}) }), []string{"malformed"}},
		{"imported table", bare(func(m *w.Module) {
			m.ImportRaw("casemate_v1", "table", []byte{1, 0x70, 0, 1})
		}), []string{"imports table casemate_v1.table"}},
		{"start traps", tool(func(g *guest) { complete(g); g.Start(g.Func(w.Sig("", ""), w.Unreachable)) }), []string{"plugin_unavailable: start section: trapped: unreachable"}},
		{"start calls the host", tool(func(g *guest) {
			complete(g)
			g.Start(g.Func(w.Sig("", ""), g.call("proc_exit", w.I32(4))))
		}), []string{"start section: guest exited with code 4"}},
		{"_initialize traps", tool(func(g *guest) { complete(g); g.initialize(w.Unreachable) }), []string{"plugin_unavailable: _initialize: trapped: unreachable"}},
		{"describe traps", tool(func(g *guest) {
			g.entry(abi.ExportMarker, w.I32(1)).entry(abi.ExportDescribe, g.call(abi.ImportLog, w.I32(4), g.text("last words")), w.Unreachable)
		}), []string{"describe: guest_trap: trapped: unreachable"}},
		{"describe fails", tool(func(g *guest) {
			g.entry(abi.ExportMarker, w.I32(1))
			g.entry(abi.ExportDescribe, g.call(abi.ImportFail, w.I32(6), w.I32(-1), g.text("no name")), w.I32(1))
		}), []string{"describe: guest_error: failed: internal"}},
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

// TestLoadErrorKeepsGuestText: what a guest says while it is loaded reaches
// whoever asks for it, and no message.
func TestLoadErrorKeepsGuestText(t *testing.T) {
	m := newManager(t)
	for _, tt := range []struct {
		name string
		edit func(g *guest)
	}{
		{"logged", func(g *guest) {
			g.entry(abi.ExportDescribe, g.call(abi.ImportLog, w.I32(4), g.text("secret")), w.Unreachable)
		}},
		{"failed", func(g *guest) {
			g.entry(abi.ExportDescribe, g.call(abi.ImportFail, w.I32(6), w.I32(-1), g.text("secret")), w.I32(1))
		}},
		{"logged at the start", func(g *guest) {
			g.initialize(g.call(abi.ImportLog, w.I32(4), g.text("secret")), w.Unreachable)
			g.describes(toolDesc)
		}},
		{"aborted", func(g *guest) { // as AssemblyScript does
			text := g.next + 4
			g.Data(g.next, []byte("\x0c\x00\x00\x00s\x00e\x00c\x00r\x00e\x00t\x00"))
			g.entry(abi.ExportDescribe, g.call("abort", w.I32(text), w.I32(0), w.I32(0), w.I32(0)), w.I32(1))
		}},
		{"named a function so", func(g *guest) {
			g.entry(abi.ExportDescribe, w.Unreachable)
			f := g.NextFunc() - 1
			names := w.Seq([]byte{1, byte(f), 6}, []byte("secret"))
			g.Custom("name", w.Section(1, names))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuest()
			g.entry(abi.ExportToolCall, w.I32(0))
			tt.edit(g)
			if tt.name != "logged at the start" {
				g.entry(abi.ExportMarker, w.I32(1))
			}
			_, err := m.Load(t.Context(), "bad.wasm", g.Bytes())
			var load *plugins.LoadError
			if !errors.As(err, &load) || load.Name != "bad.wasm" || !strings.Contains(load.GuestText, "secret") {
				t.Fatalf("error = %#v, want a LoadError with what the guest said", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error = %q, which holds what the guest said", err)
			}
		})
	}
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

// TestLoadWaitsForTheCompiler: the time that others take to compile is not the
// module's.
func TestLoadWaitsForTheCompiler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := managerWith(t, plugins.Options{})
		release := plugins.HoldCompiler(m)
		time.AfterFunc(10*time.Minute, release)
		loadInto(t, m, counter(toolGuest))
	})
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

// TestInitLogsBelongToNoCall: the start ran before any call, for all of them.
func TestInitLogsBelongToNoCall(t *testing.T) {
	g := newGuest()
	g.initialize(g.call(abi.ImportLog, w.I32(2), g.text("starting")))
	g.entry(abi.ExportToolCall, g.call(abi.ImportLog, w.I32(2), g.text("running")), g.ok())
	res := load(t, g.describes(toolDesc).Bytes()).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})
	if len(res.Logs) != 1 || res.Logs[0].Text != "running" {
		t.Errorf("logs = %q, want only what the call logged", res.Logs)
	}
}

// TestTableGrows: a table's memory is the host's, so that none grows far,
// whatever maximum it declares.
func TestTableGrows(t *testing.T) {
	g := newGuest()
	g.Table(3).TableRaw([]byte{0x70, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}).TableRaw([]byte{0x70, 1, 1, 5}).Table(100_000)
	print := g.printer()
	g.entry(abi.ExportToolCall, g.report(print,
		wide(w.TableGrow(0, 65_533)), wide(w.TableGrow(0, 1)),
		wide(w.TableGrow(1, 64<<20)), wide(w.TableGrow(1, 65_535)), wide(w.TableGrow(1, 1)),
		wide(w.TableGrow(2, 4)), wide(w.TableGrow(2, 1)),
		wide(w.TableGrow(3, 1)),
	))
	wasm := g.describes(toolDesc).Bytes()
	p := load(t, wasm)
	res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})
	wantClass(t, res, plugins.OK)
	if got, want := string(res.Output), "[3,-1,-1,1,-1,1,-1,-1]"; got != want {
		t.Errorf("sizes before = %s, want %s", got, want)
	}
	if sum := sha256.Sum256(wasm); p.Digest() != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Errorf("digest = %s, want that of the file", p.Digest())
	}
}
