package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/manifest"
)

// wrap returns a schema of an object with one property.
func wrap(inner string) string {
	return `{"type":"object","properties":{"x":` + inner + `}}`
}

func TestParseSchemaRefuses(t *testing.T) {
	deep := strings.Repeat(`{"not":`, manifest.MaxDepth) + "{}" + strings.Repeat("}", manifest.MaxDepth)
	var doubling strings.Builder // 2³² visits of the last one
	for i := range 32 {
		fmt.Fprintf(&doubling, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	for _, tt := range []struct{ name, schema, want string }{
		{"itself", `{"type":"object","allOf":[{"$ref":"#"}]}`, `"$ref" is not allowed`},
		{"twice a definition", `{"type":"object","$defs":{` + doubling.String() + `"d32":{}},"$ref":"#/$defs/d0"}`, `"$ref" is not allowed`},
		{"written with an escape", wrap(`{"\u0024ref":"#"}`), `"$ref" is not allowed`},
		{"written in capitals", wrap(`{"$REF":"#"}`), `"$REF" is not allowed`},
		{"behind a second member", wrap(`{"allOf":[{"$ref":"#"}],"allOf":[]}`), `"$ref" is not allowed`},
		{"dynamic", wrap(`{"$dynamicRef":"#x"}`), `"$dynamicRef" is not allowed`},
		{"recursive", wrap(`{"$recursiveRef":"#"}`), `"$recursiveRef" is not allowed`},
		{"dynamic anchor", wrap(`{"$dynamicAnchor":"x"}`), `"$dynamicAnchor" is not allowed`},
		{"anchor", wrap(`{"$anchor":"x"}`), `"$anchor" is not allowed`},
		{"nested", deep, "nested deeper than 64 levels"},
		{"long pattern", wrap(`{"pattern":"` + strings.Repeat("x", manifest.MaxPattern+1) + `"}`), "a pattern of 1025 bytes"},
		{"large pattern", wrap(`{"pattern":"` + strings.Repeat("x{1000}", 21) + `"}`), "compile to more than 20000"},
		{"large pattern of a name", wrap(`{"patternProperties":{"` + strings.Repeat("x{1000}", 21) + `":{}}}`), "compile to more than 20000"},
		{"cut off", `{"type":"object"`, "not JSON"},
		{"not a schema", wrap(`{"required":1}`), "not a JSON Schema"},
		{"broken pattern", wrap(`{"pattern":"("}`), "not a JSON Schema"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := manifest.ParseSchema([]byte(tt.schema)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSchemaCheck(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	rows := `{"x":[` + strings.TrimSuffix(strings.Repeat("0,", 100_000), ",") + `]}`
	alternatives := wrap(`{"items":{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{},`, 20_000), ",") + `]}}`)
	for _, tt := range []struct{ name, schema, value, want string }{
		{"good", wrap(`{"type":"string","pattern":"^[a-z]+$"}`), `{"x":"abc"}`, ""},
		{"long text", wrap(`{"type":"string"}`), `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, ""},
		{"many rows", wrap(`{"items":{"type":"number"}}`), rows, ""},
		{"mistake", wrap(`{"type":"string","pattern":"^[a-z]+$"}`), `{"x":"A"}`, "pattern"},
		{"not JSON", wrap(`{}`), `{"x":`, "not JSON"},
		{"two values", wrap(`{}`), `{} {}`, "not JSON"},
		{"nothing", wrap(`{}`), ``, "not JSON"},
		{"deep enough", wrap(`{}`), `{"x":` + nest(manifest.MaxDepth-1) + `}`, ""},
		{"too deep", wrap(`{}`), `{"x":` + nest(manifest.MaxDepth) + `}`, "nested deeper than 64 levels"},
		{"far too deep", wrap(`{}`), `{"x":` + nest(1_000_000) + `}`, "nested deeper than 64 levels"},
		{"rows and alternatives", alternatives, rows, "too large to be checked"},
		{"text and patterns", wrap(`{"pattern":"` + strings.Repeat("x{1000}", 9) + `"}`), `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, "too large to be checked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := manifest.ParseSchema([]byte(tt.schema))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Check([]byte(tt.value))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %.200v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(wrap(`{"type":"string","pattern":"^[a-z]+$"}`)), []byte(`{"x":"y"}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		s, err := manifest.ParseSchema(schema)
		if (s == nil) == (err == nil) {
			t.Fatalf("schema %v with error %v", s, err)
		}
		if err == nil {
			_ = s.Check(value) // returns, and does not panic
		}
	})
}
