package schema

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Of returns the schema of t, which must be a struct. The rules:
//
//   - a field is called what encoding/json calls it; `json:"-"` and unexported
//     fields are left out, and an embedded struct without a name gives its fields;
//   - it is required unless its tag says omitempty or omitzero;
//   - a pointer may be null;
//   - `jsonschema:"text"` describes it, `enum:"a,b"` lists its values.
//
// An error names the field and what cannot be said of it in JSON.
func Of(t reflect.Type) (*Schema, error) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("schema: want a struct, have %v", t)
	}
	s, err := inference{}.of(t)
	if err != nil {
		return nil, fmt.Errorf("schema: %v: %w", t, err)
	}
	if s.Type != "object" {
		return nil, fmt.Errorf("schema: %v is not an object in JSON", t)
	}
	return s, nil
}

// inference holds the structs that are being looked at, to see a type that
// contains itself.
type inference map[reflect.Type]bool

var (
	rawType         = reflect.TypeFor[json.RawMessage]()
	numberType      = reflect.TypeFor[json.Number]()
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (in inference) of(t reflect.Type) (*Schema, error) {
	switch {
	case t == rawType:
		return &Schema{}, nil
	case t == numberType:
		return &Schema{Type: "number"}, nil
	case t.Kind() == reflect.Pointer:
		s, err := in.of(t.Elem())
		if err != nil {
			return nil, err
		}
		s.Nullable = true
		return s, nil
	case reflect.PointerTo(t).Implements(textType):
		s := &Schema{Type: "string"}
		if t.PkgPath() == "time" && t.Name() == "Time" {
			s.Format = "date-time"
		}
		return s, nil
	case reflect.PointerTo(t).Implements(unmarshalerType):
		return &Schema{}, nil // only the type itself knows
	}
	return in.ofKind(t)
}

func (in inference) ofKind(t reflect.Type) (*Schema, error) {
	switch t.Kind() { //nolint:exhaustive // what is left out cannot be in JSON
	case reflect.Bool:
		return &Schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &Schema{Type: "integer"}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return &Schema{Type: "integer", NotNegative: true}, nil
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: "number"}, nil
	case reflect.String:
		return &Schema{Type: "string"}, nil
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return nil, fmt.Errorf("%v: an interface with methods cannot be read from JSON", t)
		}
		return &Schema{}, nil
	case reflect.Slice, reflect.Array:
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			return &Schema{Type: "string", Encoding: "base64"}, nil
		}
		items, err := in.of(t.Elem())
		return &Schema{Type: "array", Items: items}, err
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("%v: the keys of a map must be strings", t)
		}
		values, err := in.of(t.Elem())
		return &Schema{Type: "object", Values: values}, err
	case reflect.Struct:
		return in.ofStruct(t)
	default:
		return nil, fmt.Errorf("%v cannot be read from JSON", t)
	}
}

func (in inference) ofStruct(t reflect.Type) (*Schema, error) {
	if in[t] {
		return nil, fmt.Errorf("%v contains itself: use json.RawMessage where it does", t)
	}
	in[t] = true
	defer delete(in, t)
	s := &Schema{Type: "object"}
	for i := range t.NumField() {
		if err := in.addField(s, t.Field(i)); err != nil {
			return nil, fmt.Errorf("field %s: %w", t.Field(i).Name, err)
		}
	}
	return s, nil
}

func (in inference) addField(s *Schema, f reflect.StructField) error {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	embedded := f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct
	switch {
	case f.Tag.Get("json") == "-":
		return nil
	case f.Anonymous && name == "" && f.Type.Kind() == reflect.Pointer:
		return errors.New("embed the struct itself, not a pointer, or give it a name")
	case !f.IsExported() && !embedded:
		return nil
	case name == "":
		name = f.Name
	}
	node, err := in.of(f.Type)
	if err != nil {
		return err
	}
	if embedded && node.Type == "object" {
		for _, p := range node.Properties {
			if err := s.add(p); err != nil {
				return err
			}
		}
		return nil
	}
	p := Property{Name: name, Required: true, Schema: node}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty", "omitzero":
			p.Required = false
		case "string":
			return errors.New("the json option string is not supported")
		}
	}
	if err := node.annotate(f.Tag); err != nil {
		return err
	}
	return s.add(p)
}

func (s *Schema) add(p Property) error {
	if s.property(p.Name) != nil {
		return fmt.Errorf("a second member is called %q", p.Name)
	}
	s.Properties = append(s.Properties, p)
	return nil
}

func (s *Schema) annotate(tag reflect.StructTag) error {
	s.Description = tag.Get("jsonschema")
	// A word and "=" at the start is how other packages say more than a
	// description; taken as text it would mislead a model without a sign.
	if word, _, ok := strings.Cut(s.Description, "="); ok && word != "" && !strings.ContainsAny(word, " \t") {
		return fmt.Errorf("jsonschema tag %q: want a description; values go into an enum tag", s.Description)
	}
	list, ok := tag.Lookup("enum")
	if !ok {
		return nil
	}
	target := s
	if s.Type == "array" {
		target = s.Items // the list is of what each item may be
	}
	for value := range strings.SplitSeq(list, ",") {
		switch target.Type {
		case "string":
			target.Enum = append(target.Enum, value)
		case "integer", "number":
			if _, err := strconv.ParseFloat(value, 64); err != nil {
				return fmt.Errorf("enum tag: %q is not a number", value)
			}
			target.Enum = append(target.Enum, json.Number(value))
		default:
			return errors.New("enum tag: only strings and numbers can be listed")
		}
	}
	return nil
}
