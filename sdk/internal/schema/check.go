package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Check reports the first way in which the JSON text data is not what s says.
// The text of the error names the member and what is wanted, for a model to
// mend its call.
func (s *Schema) Check(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if dec.More() {
		return errors.New("not JSON: text after the value")
	}
	return s.check(v)
}

func (s *Schema) check(v any) error {
	if v == nil && s.Nullable || s.Type == "" {
		return nil
	}
	if err := s.checkType(v); err != nil {
		return err
	}
	switch v := v.(type) {
	case map[string]any:
		return s.checkMembers(v)
	case []any:
		for i, item := range v {
			if err := s.Items.check(item); err != nil {
				return at("["+strconv.Itoa(i)+"]", err)
			}
		}
		return nil
	}
	return s.checkEnum(v)
}

func (s *Schema) checkType(v any) error {
	have := typeOf(v)
	switch {
	case have == s.Type:
	case s.Type == "number" && have == "integer":
	default:
		return fmt.Errorf("want %s, have %s", article(s.Type), article(have))
	}
	if n, ok := v.(json.Number); ok && s.NotNegative && strings.HasPrefix(n.String(), "-") {
		return fmt.Errorf("want 0 or more, have %s", n)
	}
	return nil
}

func (s *Schema) checkMembers(members map[string]any) error {
	if s.Values != nil {
		for _, name := range slices.Sorted(maps.Keys(members)) {
			if err := s.Values.check(members[name]); err != nil {
				return at(clip(name), err)
			}
		}
		return nil
	}
	for _, p := range s.Properties {
		v, ok := members[p.Name]
		if !ok && p.Required {
			return at(p.Name, errors.New("missing"))
		}
		if !ok {
			continue
		}
		if err := p.Schema.check(v); err != nil {
			return at(p.Name, err)
		}
	}
	return s.checkUnknown(members)
}

func (s *Schema) checkUnknown(members map[string]any) error {
	var unknown []string
	for name := range members {
		if s.property(name) == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	first := slices.Min(unknown) // so that equal calls give equal texts
	known := make([]string, len(s.Properties))
	for i, p := range s.Properties {
		known[i] = p.Name
	}
	return at(clip(first), fmt.Errorf("unknown; the members are %s", strings.Join(known, ", ")))
}

func (s *Schema) checkEnum(v any) error {
	if len(s.Enum) == 0 {
		return nil
	}
	texts := make([]string, len(s.Enum))
	for i, allowed := range s.Enum {
		if sameScalar(allowed, v) {
			return nil
		}
		texts[i] = scalarText(allowed)
	}
	return fmt.Errorf("want one of %s, have %s", strings.Join(texts, ", "), scalarText(v))
}

// pathError is an error at a member, reported with the whole path to it.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

func at(name string, err error) error {
	inner, ok := err.(*pathError) //nolint:errorlint // made below in this package, never wrapped
	switch {
	case !ok:
		return &pathError{path: name, err: err}
	case strings.HasPrefix(inner.path, "["):
		return &pathError{path: name + inner.path, err: inner.err}
	}
	return &pathError{path: name + "." + inner.path, err: inner.err}
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	}
	return "object"
}

func article(typ string) string {
	switch typ {
	case "null":
		return typ
	case "array", "integer", "object":
		return "an " + typ
	}
	return "a " + typ
}

func sameScalar(a, b any) bool {
	an, aok := a.(json.Number)
	bn, bok := b.(json.Number)
	if aok && bok {
		af, aerr := an.Float64()
		bf, berr := bn.Float64()
		return aerr == nil && berr == nil && af == bf
	}
	return a == b
}

func scalarText(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(clip(s))
	}
	return fmt.Sprint(v)
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
