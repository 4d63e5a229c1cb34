package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

const good = `{"v":1,"name":"calc","version":"1.0.0-rc.1+b","kinds":["tool","retry"],"future":true,
"tools":[{"name":"a_B-1","description":"adds","parameters":{"type":"object","properties":{"x":{"type":"string"}}},"effects":"pure","timeout_ms":5},
{"name":"b","description":"","parameters":{"type":"object"}}],
"capabilities":["kv.get/1","dream.read/9"],"config_schema":{"type":"object"},"warm_up":[{"tool":"b"}]}`

func TestParse(t *testing.T) {
	d, err := manifest.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "calc" || d.Tools[0].Effects != abi.EffectsPure || d.Tools[1].Effects != abi.EffectsOnce {
		t.Errorf("descriptor = %+v", d)
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for _, tt := range []struct{ name, old, new, want string }{
		{"not json", `{"v"`, `{v`, "not the JSON"},
		{"wrong type", `"name":"calc"`, `"name":7`, "not the JSON"},
		{"no version of the envelope", `"v":1`, `"v":2`, "v is 2"},
		{"empty name", `"calc"`, `""`, "name"},
		{"upper-case name", `"calc"`, `"Calc"`, "name"},
		{"long name", `"calc"`, `"` + strings.Repeat("c", 64) + `"`, "name"},
		{"name with a newline", `"calc"`, `"calc\n"`, "name"},
		{"version", `"1.0.0-rc.1+b"`, `"1.0"`, "semantic version"},
		{"version with zeros", `"1.0.0-rc.1+b"`, `"01.0.0"`, "semantic version"},
		{"no kinds", `["tool","retry"]`, `[]`, "kinds is empty"},
		{"unknown kind", `"retry"`, `"dance"`, `kinds[1] is "dance"`},
		{"kind twice", `"retry"`, `"tool"`, "twice"},
		{"tools without kind", `["tool","retry"]`, `["retry"]`, "no tool"},
		{"tool name", `"a_B-1"`, `"a b"`, "tools[0].name"},
		{"tool twice", `"a_B-1"`, `"b"`, "twice"},
		{"effects", `"pure"`, `"none"`, "effects"},
		{"negative timeout", `"timeout_ms":5`, `"timeout_ms":-5`, "timeout_ms"},
		{"nul in text", `"adds"`, `"a\u0000"`, "NUL"},
		{"long text", `"adds"`, `"` + long + `"`, "bytes"},
		{"no parameters", `"parameters":{"type":"object"}}`, `"x":1}`, "missing"},
		{"null parameters", `"parameters":{"type":"object"}}`, `"parameters":null}`, "object"},
		{"parameters of another type", `"parameters":{"type":"object"}}`, `"parameters":{"type":"array"}}`, `want "object"`},
		{"parameters are no schema", `"parameters":{"type":"object"}}`, `"parameters":{"type":"object","required":1}}`, "not a JSON Schema"},
		{"remote reference", `{"type":"string"}`, `{"$ref":"https://example.com/x.json"}`, `"$ref" is not allowed`},
		{"broken pattern", `{"type":"string"}`, `{"pattern":"("}`, "not a JSON Schema"},
		{"large schema", `{"type":"string"}`, `{"description":"` + long + `"}`, "more than"},
		{"config schema", `"config_schema":{"type":"object"}`, `"config_schema":{"type":7}`, "config_schema"},
		{"capability", `"kv.get/1"`, `"KV"`, "capabilities[0]"},
		{"capability without version", `"kv.get/1"`, `"kv.get"`, "capabilities[0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			if bad == good {
				t.Fatal("nothing was replaced")
			}
			_, err := manifest.Parse([]byte(bad))
			if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want ErrInvalid with %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := manifest.Parse(make([]byte, manifest.MaxDescriptor+1)); !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("too large = %v", err)
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[1,2]}`, `{ "b":[1.0,2], "a":1 }`, true},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`[1,2]`, `[2,1]`, false},
		{`{`, `{`, false},
	} {
		if got := manifest.Equal([]byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("Equal(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}

// module returns a module of the given sections.
func module(sections ...string) []byte {
	return []byte("\x00asm\x01\x00\x00\x00" + strings.Join(sections, ""))
}

func custom(name, data string) string {
	return fmt.Sprintf("\x00%c%c%s%s", 1+len(name)+len(data), len(name), name, data)
}

func TestSection(t *testing.T) {
	other := custom("name", "abc")
	typ := "\x01\x04\x01\x60\x00\x00"
	for name, wasm := range map[string][]byte{
		"without": module(typ, other),
		"with":    module(custom(abi.Section, "old"), typ, other),
		"twice":   module(custom(abi.Section, "old"), typ, other, custom(abi.Section, "older")),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := manifest.WriteSection(wasm, []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if want := module(typ, other, custom(abi.Section, "{}")); !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			data, ok, err := manifest.ReadSection(got)
			if err != nil || !ok || string(data) != "{}" {
				t.Errorf("read back %q, %v, %v", data, ok, err)
			}
		})
	}
}

func TestReadSectionRefuses(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"empty":         nil,
		"component":     []byte("\x00asm\x0d\x00\x01\x00"),
		"cut off":       module("\x01"),
		"size too long": module("\x01\x05\x00"),
		"endless size":  module("\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"twice":         module(custom(abi.Section, ""), custom(abi.Section, "")),
	} {
		if _, _, err := manifest.ReadSection(wasm); !errors.Is(err, manifest.ErrSection) {
			t.Errorf("%s = %v, want ErrSection", name, err)
		}
	}
}

func FuzzSection(f *testing.F) {
	f.Add(module(custom(abi.Section, good[:50]), "\x01\x04\x01\x60\x00\x00"))
	f.Add(module("\x00\x02\xff\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, wasm []byte) {
		data, ok, err := manifest.ReadSection(wasm)
		if err != nil && (ok || data != nil) {
			t.Errorf("an error with data: %q", data)
		}
		packed, err := manifest.WriteSection(wasm, []byte(`{"v":1}`))
		if err != nil {
			return
		}
		data, ok, err = manifest.ReadSection(packed)
		if err != nil || !ok || string(data) != `{"v":1}` {
			t.Errorf("read back %q, %v, %v", data, ok, err)
		}
		again, err := manifest.WriteSection(packed, data)
		if err != nil || !bytes.Equal(again, packed) {
			t.Errorf("packing again gives other bytes: %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"v":1,"name":"a","version":"0.0.0","kinds":["route"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := manifest.Parse(data)
		if err != nil {
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.Parse(b); err != nil {
			t.Errorf("what Parse returned does not parse: %v", err)
		}
	})
}
