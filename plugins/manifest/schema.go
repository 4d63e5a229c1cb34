package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// The bounds of schemas and of what is checked against them.
const (
	// MaxDepth is how deep the objects and arrays of a schema may nest, and
	// those of a value that is checked.
	MaxDepth = 64
	// MaxPattern is the longest regular expression, in bytes, and
	// MaxPatterns the most that all of a schema compile to, in instructions:
	// a few bytes of counted repetition become thousands of them.
	MaxPattern  = 1 << 10
	MaxPatterns = 20_000
	// maxWork bounds the product of a value and its schema, in about
	// nanoseconds.
	maxWork = 256 << 20
)

// references are the keywords by which a schema leads back to itself or to
// another part of it: a value could then take endless or exponential time.
var references = []string{"$ref", "$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$recursiveAnchor"}

// Schema is a JSON Schema of a plugin. It is a tree: to check a value takes
// time in proportion to both. It is safe for concurrent use.
type Schema struct {
	resolved *jsonschema.Resolved
	size     survey
}

// ParseSchema reads a JSON Schema. It may have at most MaxSchema bytes and no
// references; the word of a reference is refused anywhere in it, be it the
// name of a property. The error tells what is wrong.
func ParseSchema(raw []byte) (*Schema, error) {
	_, s, err := parseSchema(raw)
	return s, err
}

func parseSchema(raw []byte) (typ string, s *Schema, err error) {
	switch {
	case len(raw) == 0:
		return "", nil, errors.New("missing, want a JSON Schema")
	case len(raw) > MaxSchema:
		return "", nil, fmt.Errorf("%d bytes, more than %d", len(raw), MaxSchema)
	case bytes.Contains(raw, []byte(`\u0000`)):
		return "", nil, errors.New("a NUL character is not allowed")
	}
	s = &Schema{size: survey{schema: true}}
	if err := s.size.read(raw); err != nil {
		return "", nil, err
	}
	var tree jsonschema.Schema
	if err := json.Unmarshal(raw, &tree); err != nil {
		return "", nil, fmt.Errorf("not a JSON Schema: %s", brief(err.Error()))
	}
	// No loader: nothing outside of the schema is asked for.
	if s.resolved, err = tree.Resolve(nil); err != nil {
		return "", nil, fmt.Errorf("not a JSON Schema: %s", brief(err.Error()))
	}
	return tree.Type, s, nil
}

// Check reports what is wrong with a JSON value. Its text names the schema's
// parts and the value's, which may be long.
func (s *Schema) Check(value []byte) error {
	var size survey
	if err := size.read(value); err != nil {
		return err
	}
	if size.values*s.size.text+int64(len(value))*(4*s.size.containers+s.size.patterns) > maxWork {
		return errors.New("too large to be checked against the schema: make it shorter")
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return errNotJSON
	}
	return s.resolved.Validate(v)
}

var errNotJSON = errors.New("not JSON")

// survey measures a JSON text without building it. Duplicate members count,
// since decoders differ in which they take.
type survey struct {
	schema     bool  // look for references and patterns
	values     int64 // of any kind
	containers int64 // objects and arrays
	text       int64 // what naming every part in a message takes, in bytes
	patterns   int64 // instructions of all regular expressions
}

// read measures the first value of data; what follows it is not looked at.
func (s *survey) read(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return s.value(dec, 0, 0, "")
}

// value reads one value, which is the member name of its object. path is the
// length of the names that lead to it.
func (s *survey) value(dec *json.Decoder, depth int, path int64, name string) error {
	t, err := dec.Token()
	if err != nil {
		return errNotJSON
	}
	s.values++
	switch t := t.(type) {
	case json.Delim:
		if depth >= MaxDepth {
			return fmt.Errorf("nested deeper than %d levels", MaxDepth)
		}
		s.containers++
		s.text += path + 32
		return s.container(dec, t, depth+1, path, name)
	case bool: // a schema, too
		s.text += path + 32
	case string:
		s.text += int64(len(t)) + 8
		if s.schema && strings.EqualFold(name, "pattern") {
			return s.pattern(t)
		}
	default:
		s.text += 8
	}
	return nil
}

// container reads the rest of an object or array.
func (s *survey) container(dec *json.Decoder, open json.Delim, depth int, path int64, name string) error {
	patterns := s.schema && strings.EqualFold(name, "patternProperties")
	for dec.More() {
		member := ""
		if open == '{' {
			t, err := dec.Token()
			if err != nil {
				return errNotJSON
			}
			member, _ = t.(string)
			if s.schema && slices.ContainsFunc(references, func(r string) bool { return strings.EqualFold(r, member) }) {
				return fmt.Errorf("%s is not allowed: write the schema out", brief(member))
			}
			if patterns {
				if err := s.pattern(member); err != nil {
					return err
				}
			}
		}
		if err := s.value(dec, depth, path+int64(len(member))+1, member); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return errNotJSON
	}
	return nil
}

// pattern measures a regular expression. One that is broken is not refused
// here: it may be no pattern, but a part of an example.
func (s *survey) pattern(expr string) error {
	if len(expr) > MaxPattern {
		return fmt.Errorf("a pattern of %d bytes, more than %d", len(expr), MaxPattern)
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil
	}
	s.patterns += int64(len(prog.Inst))
	if s.patterns > MaxPatterns {
		return fmt.Errorf("its patterns compile to more than %d instructions", MaxPatterns)
	}
	return nil
}
