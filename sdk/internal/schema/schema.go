// Package schema infers the JSON Schema of a Go struct and checks JSON values
// against it, with errors that a model can act on. It knows the part of JSON
// Schema that Go types and their tags can say; it reads no schema.
package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Schema is one node of an inferred schema.
type Schema struct {
	Type        string // "object", "array", "string", "integer", "number", "boolean"; "": anything
	Nullable    bool   // null is a value too
	Description string
	Enum        []any // of string or json.Number
	Format      string
	Encoding    string // contentEncoding of a string
	NotNegative bool
	Properties  []Property // of an object with known names, in the order of the fields
	Items       *Schema    // of an array
	Values      *Schema    // of an object with free names
}

// Property is one member of an object with known names.
type Property struct {
	Name     string
	Required bool
	Schema   *Schema
}

// MarshalJSON writes s as JSON Schema. Properties keep their order, since a
// model reads them in it.
func (s *Schema) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	w := objectWriter{b: &b}
	if s.Type != "" && s.Nullable {
		w.member("type", []string{s.Type, "null"})
	} else if s.Type != "" {
		w.member("type", s.Type)
	}
	w.text("description", s.Description)
	if len(s.Enum) > 0 {
		enum := s.Enum
		if s.Nullable {
			enum = append(enum[:len(enum):len(enum)], nil)
		}
		w.member("enum", enum)
	}
	w.text("format", s.Format)
	w.text("contentEncoding", s.Encoding)
	if s.NotNegative {
		w.member("minimum", 0)
	}
	if s.Items != nil {
		w.member("items", s.Items)
	}
	if s.Type == "object" {
		s.marshalMembers(&w)
	}
	return w.close()
}

func (s *Schema) marshalMembers(w *objectWriter) {
	if s.Values != nil {
		w.member("additionalProperties", s.Values)
		return
	}
	required := []string{}
	props := objectWriter{b: new(bytes.Buffer)}
	for _, p := range s.Properties {
		props.member(p.Name, p.Schema)
		if p.Required {
			required = append(required, p.Name)
		}
	}
	text, err := props.close()
	if err != nil {
		w.err = err
		return
	}
	w.member("properties", json.RawMessage(text))
	w.member("required", required)
	w.member("additionalProperties", false)
}

// property returns the member called name, or nil.
func (s *Schema) property(name string) *Property {
	for i := range s.Properties {
		if s.Properties[i].Name == name {
			return &s.Properties[i]
		}
	}
	return nil
}

// objectWriter writes the members of one JSON object in the order given.
type objectWriter struct {
	b   *bytes.Buffer
	n   int
	err error
}

func (w *objectWriter) text(name, value string) {
	if value != "" {
		w.member(name, value)
	}
}

func (w *objectWriter) member(name string, value any) {
	key, err := json.Marshal(name)
	if err != nil {
		w.err = err
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		w.err = fmt.Errorf("schema: %s: %w", name, err)
		return
	}
	sep := byte(',')
	if w.n == 0 {
		sep = '{'
	}
	w.n++
	w.b.WriteByte(sep)
	w.b.Write(key)
	w.b.WriteByte(':')
	w.b.Write(text)
}

func (w *objectWriter) close() ([]byte, error) {
	if w.n == 0 {
		w.b.WriteByte('{')
	}
	w.b.WriteByte('}')
	return w.b.Bytes(), w.err
}
