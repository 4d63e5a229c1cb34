package schema_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/casemate/casemate/sdk/internal/schema"
)

type place struct {
	Lat float64 `json:"lat" jsonschema:"degrees north"`
	Lon float64 `json:"lon"`
}

type common struct {
	Trace bool `json:"trace,omitempty"`
}

type everything struct {
	common
	Text    string          `json:"text" jsonschema:"what to say, in one line"`
	Mode    string          `json:"mode" enum:"fast,slow"`
	Level   int             `json:"level,omitempty" enum:"1,2,3"`
	Count   uint8           `json:"count"`
	Ratio   float32         `json:"ratio,omitzero"`
	Maybe   *int            `json:"maybe"`
	Place   place           `json:"place"`
	Tags    []string        `json:"tags,omitempty" enum:"a,b"`
	Data    []byte          `json:"data,omitempty"`
	Labels  map[string]int  `json:"labels,omitempty"`
	When    time.Time       `json:"when,omitzero"`
	Any     any             `json:"any,omitempty"`
	Raw     json.RawMessage `json:"raw,omitempty"`
	Number  json.Number     `json:"number,omitempty"`
	Skipped string          `json:"-"`
	hidden  string
	Bare    bool
}

func TestOf(t *testing.T) {
	_ = everything{}.hidden
	s, err := schema.Of(reflect.TypeFor[everything]())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"object","properties":{` +
		`"trace":{"type":"boolean"},` +
		`"text":{"type":"string","description":"what to say, in one line"},` +
		`"mode":{"type":"string","enum":["fast","slow"]},` +
		`"level":{"type":"integer","enum":[1,2,3]},` +
		`"count":{"type":"integer","minimum":0},` +
		`"ratio":{"type":"number"},` +
		`"maybe":{"type":["integer","null"]},` +
		`"place":{"type":"object","properties":{"lat":{"type":"number","description":"degrees north"},"lon":{"type":"number"}},"required":["lat","lon"],"additionalProperties":false},` +
		`"tags":{"type":"array","items":{"type":"string","enum":["a","b"]}},` +
		`"data":{"type":"string","contentEncoding":"base64"},` +
		`"labels":{"type":"object","additionalProperties":{"type":"integer"}},` +
		`"when":{"type":"string","format":"date-time"},` +
		`"any":{},"raw":{},"number":{"type":"number"},"Bare":{"type":"boolean"}},` +
		`"required":["text","mode","count","maybe","place","Bare"],"additionalProperties":false}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var parsed jsonschema.Schema
	if err := json.Unmarshal(got, &parsed); err != nil {
		t.Fatalf("another reader of schemas: %v", err)
	}
	if _, err := parsed.Resolve(nil); err != nil {
		t.Errorf("another reader of schemas: %v", err)
	}
}

func TestOfEmptyStruct(t *testing.T) {
	s, err := schema.Of(reflect.TypeFor[struct{}]())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if want := `{"type":"object","properties":{},"required":[],"additionalProperties":false}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

type loop struct {
	Next []loop `json:"next"`
}

func TestOfRefuses(t *testing.T) {
	tests := []struct {
		name string
		typ  reflect.Type
		want string // part of the error
	}{
		{"a string", reflect.TypeFor[string](), "want a struct"},
		{"nothing", nil, "want a struct"},
		{"a pointer", reflect.TypeFor[*place](), "want a struct"},
		{"a time", reflect.TypeFor[time.Time](), "not an object"},
		{"a channel", reflect.TypeFor[struct{ C chan int }](), "field C: chan int cannot"},
		{"a function in a list", reflect.TypeFor[struct{ F []func() }](), "field F: func() cannot"},
		{"an interface with methods", reflect.TypeFor[struct{ R interface{ M() } }](), "interface with methods"},
		{"a map with other keys", reflect.TypeFor[struct{ M map[int]string }](), "keys of a map"},
		{"a type in itself", reflect.TypeFor[loop](), "contains itself"},
		{"two members with one name", reflect.TypeFor[struct {
			place
			North float64 `json:"lat"`
		}](), `a second member is called "lat"`},
		{"an embedded pointer", reflect.TypeFor[struct{ *place }](), "embed the struct itself"},
		{"the option string", reflect.TypeFor[struct {
			A int `json:",string"`
		}](), "option string"},
		{"a tag of another package", reflect.TypeFor[struct {
			A int `jsonschema:"minimum=3"`
		}](), "want a description"},
		{"an enum of an object", reflect.TypeFor[struct {
			A place `enum:"a"`
		}](), "only strings and numbers"},
		{"an enum that is no number", reflect.TypeFor[struct {
			A int `enum:"1,two"`
		}](), `"two" is not a number`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := schema.Of(tt.typ)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	s, err := schema.Of(reflect.TypeFor[everything]())
	if err != nil {
		t.Fatal(err)
	}
	const rest = `,"mode":"fast","count":1,"maybe":null,"place":{"lat":1,"lon":2.5},"Bare":true`
	tests := []struct {
		name, data, want string
	}{
		{"the least", `{"text":"x"` + rest + `}`, ""},
		{"everything", `{"text":"x","level":2.0e0,"tags":["a","b"],"labels":{"x":1},"raw":[{}],"any":null` + rest + `}`, "level: want an integer, have a number"},
		{"an enum of numbers", `{"text":"x","level":2,"tags":["a","b"],"labels":{"x":1},"raw":[{}],"any":null` + rest + `}`, ""},
		{"missing", `{` + rest[1:] + `}`, "text: missing"},
		{"missing inside", `{"text":"x","mode":"fast","count":1,"maybe":1,"place":{"lat":1},"Bare":true}`, "place.lon: missing"},
		{"a wrong type", `{"text":3` + rest + `}`, "text: want a string, have an integer"},
		{"a null", `{"text":null` + rest + `}`, "text: want a string, have null"},
		{"not listed", `{"text":"x","mode":"medium","count":1,"maybe":null,"place":{"lat":1,"lon":2},"Bare":true}`, `mode: want one of "fast", "slow", have "medium"`},
		{"not a listed number", `{"text":"x","level":4` + rest + `}`, `level: want one of 1, 2, 3, have 4`},
		{"negative", `{"text":"x","mode":"fast","count":-1,"maybe":null,"place":{"lat":1,"lon":2},"Bare":true}`, "count: want 0 or more, have -1"},
		{"in a list", `{"text":"x","tags":["a","c"]` + rest + `}`, `tags[1]: want one of "a", "b", have "c"`},
		{"in a map", `{"text":"x","labels":{"b":"1","a":true}` + rest + `}`, "labels.a: want an integer, have a boolean"},
		{"unknown", `{"text":"x","zeta":1,"yps":2` + rest + `}`, "yps: unknown; the members are trace, text,"},
		{"another case", `{"Text":"x"` + rest + `}`, "text: missing"},
		{"an array", `[]`, "want an object, have an array"},
		{"null", `null`, "want an object, have null"},
		{"not JSON", `{"text":`, "not JSON"},
		{"two values", `{} {}`, "not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := s.Check([]byte(tt.data)); err != nil {
				got = err.Error()
			}
			if got != tt.want && (tt.want == "" || !strings.HasPrefix(got, tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What Check lets through must be what another implementation of JSON Schema
// lets through.
func FuzzCheckAgrees(f *testing.F) {
	s, err := schema.Of(reflect.TypeFor[everything]())
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	var other jsonschema.Schema
	if err := json.Unmarshal(text, &other); err != nil {
		f.Fatal(err)
	}
	resolved, err := other.Resolve(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"text":"x","mode":"fast","count":1,"maybe":null,"place":{"lat":1,"lon":2.5},"Bare":true}`)
	f.Add(`{"text":"x","mode":"slow","count":0,"maybe":3,"place":{"lat":1,"lon":2},"Bare":false,"tags":["a"],"labels":{"x":2}}`)
	f.Add(`{"text":"x"}`)
	f.Fuzz(func(t *testing.T, data string) {
		var v any
		if s.Check([]byte(data)) != nil || json.Unmarshal([]byte(data), &v) != nil {
			return
		}
		if err := resolved.Validate(v); err != nil {
			t.Errorf("%s passed, but: %v", data, err)
		}
	})
}
