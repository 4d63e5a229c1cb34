package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A place is where a value was set: "casemate.yaml:3: listen" or the name of a
// variable of the environment.
type place string

// reader fills a File from a tree of YAML nodes and keeps all that is wrong.
// It walks the nodes by itself, since the decoder of the library would accept
// a number where a string is wanted and does not tell the place of a value.
type reader struct {
	source string            // name of the file, for messages
	dir    string            // relative paths are taken from here
	env    map[string]string // the whole environment
	file   File
	errs   []error
	// secrets: variables that hold keys are read.
	secrets bool
	// places tells where each setting was set, by its key.
	places map[string]place
	// used are the variables that the file names: CASEMATE_… among them are no
	// settings.
	used map[string]bool
	// later are checks that need the whole file.
	later []func()
}

func newReader(source, dir string, environ []string) *reader {
	r := &reader{source: source, dir: dir, env: map[string]string{}, places: map[string]place{}, used: map[string]bool{}}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			r.env[name] = value
		}
	}
	return r
}

// finish puts the environment over what was read and checks the whole.
func (r *reader) finish() (File, error) {
	r.environment()
	for _, check := range r.later {
		check()
	}
	r.exposure()
	r.notified()
	if len(r.errs) > 0 {
		return File{}, fmt.Errorf("config: %w: %w", ErrInvalid, errors.Join(r.errs...))
	}
	return r.file, nil
}

func (r *reader) wrong(at place, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", at, fmt.Errorf(format, args...)))
}

func (r *reader) at(n *yaml.Node, path string) place {
	if path == "" {
		return place(fmt.Sprintf("%s:%d", r.source, n.Line))
	}
	return place(fmt.Sprintf("%s:%d: %s", r.source, n.Line, path))
}

// parseError finds the line in what the library says of broken YAML.
var parseError = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// document reads the one YAML document of a file.
func (r *reader) document(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.wrong(place(r.source+":1"), "the file is empty, want models and upstreams")
		return
	case err != nil:
		r.broken(err)
		return
	}
	r.root(doc.Content[0])
	switch err := dec.Decode(&second); {
	case err == nil:
		r.wrong(r.at(&second, ""), "a second document; want one")
	case !errors.Is(err, io.EOF):
		r.broken(err)
	}
}

func (r *reader) broken(err error) {
	if m := parseError.FindStringSubmatch(err.Error()); m != nil {
		r.wrong(place(r.source+":"+m[1]), "not YAML: %s", m[2])
		return
	}
	r.wrong(place(r.source), "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
}

// value reads the node of one value; path is its key path.
type value func(n *yaml.Node, path string)

// object reads a mapping: each key by its value, every other key is wrong.
func (r *reader) object(n *yaml.Node, path string, keys map[string]value) {
	known := func(key string) error {
		if keys[key] == nil {
			return fmt.Errorf("unknown key; known here: %s", strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		}
		return nil
	}
	r.mapping(n, path, known, func(key string, n *yaml.Node, path string) { keys[key](n, path) })
}

// mapping reads a mapping whose keys check accepts.
func (r *reader) mapping(n *yaml.Node, path string, check func(string) error, read func(key string, n *yaml.Node, path string)) {
	if !r.is(n, path, yaml.MappingNode, "a mapping of keys") {
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		switch err := check(key.Value); {
		case key.Kind != yaml.ScalarNode:
			r.wrong(r.at(key, path), "a key is not a plain word")
		case err != nil:
			r.wrong(r.at(key, join(path, brief(key.Value))), "%w", err)
		case lines[key.Value] != 0:
			r.wrong(r.at(key, below), "is there twice, first on line %d", lines[key.Value])
		default:
			lines[key.Value] = key.Line
			read(key.Value, val, below)
		}
	}
}

// list reads a sequence: item is called with each node and its path.
func (r *reader) list(item value) value {
	return func(n *yaml.Node, path string) {
		if !r.is(n, path, yaml.SequenceNode, "a list") {
			return
		}
		for i, c := range n.Content {
			item(c, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

// text reads a string that check accepts into dst.
func (r *reader) text(dst *string, check func(string) error) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, "!!str")
		if !ok {
			return
		}
		if err := check(s); err != nil {
			r.wrong(r.at(n, path), "%w", err)
			return
		}
		*dst = s
	}
}

// texts reads a list of strings without repetition.
func (r *reader) texts(dst *[]string, check func(string) error) value {
	return func(n *yaml.Node, path string) {
		r.list(func(n *yaml.Node, path string) {
			var s string
			r.text(&s, check)(n, path)
			switch {
			case s == "":
			case slices.Contains(*dst, s):
				r.wrong(r.at(n, path), "%s is there twice", brief(s))
			default:
				*dst = append(*dst, s)
			}
		})(n, path)
	}
}

// some reads a list of strings that may not be empty: leaving the key out does
// not mean nothing, which an empty list would seem to mean.
func (r *reader) some(dst *[]string, check func(string) error) value {
	read := r.texts(dst, check)
	return func(n *yaml.Node, path string) {
		read(n, path)
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			r.wrong(r.at(n, path), "is empty: want at least one, or leave the key out")
		}
	}
}

// weight reads a share.
func (r *reader) weight(dst *float64) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, "!!float !!int")
		if !ok {
			return
		}
		w, err := strconv.ParseFloat(s, 64)
		if err != nil || !(w >= 0.001 && w <= 1000) {
			r.wrong(r.at(n, path), "%s: want a number from 0.001 to 1000", brief(s))
			return
		}
		*dst = w
	}
}

// count reads a number of things, at least 1.
func (r *reader) count(dst *int) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, "!!int")
		if !ok {
			return
		}
		v, err := number(s, 1_000_000)
		if err != nil {
			r.wrong(r.at(n, path), "%w", err)
			return
		}
		*dst = int(v)
	}
}

// warn tells of what works, though hardly as meant.
func (r *reader) warn(at place, format string, args ...any) {
	r.file.Warnings = append(r.file.Warnings, fmt.Sprintf("%s: %s", at, fmt.Sprintf(format, args...)))
}

// path returns p as seen from the working directory.
func (r *reader) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.dir, p)
}

// flag reads true or false.
func (r *reader) flag(dst *bool) value {
	return func(n *yaml.Node, path string) {
		if s, ok := r.scalar(n, path, "!!bool"); ok {
			*dst = strings.EqualFold(s, "true") // no other spelling is a bool of YAML 1.2
		}
	}
}

// wanted says what the values of each set of YAML types are.
var wanted = map[string]string{
	"!!str": "a string (put it in quotes)", "!!int": "a whole number", "!!float !!int": "a number",
	"!!bool": "true or false", quantityTags: "a whole number, plain or with a unit", durationTags: "a duration, like 30s",
}

// scalar returns the text of a plain value of one of the given types.
func (r *reader) scalar(n *yaml.Node, path, tags string) (string, bool) {
	want, hint, _ := strings.Cut(wanted[tags], " (")
	if !r.is(n, path, yaml.ScalarNode, want) {
		return "", false
	}
	if !slices.Contains(strings.Fields(tags), n.ShortTag()) {
		if hint != "" {
			want += " (" + hint
		}
		r.wrong(r.at(n, path), "want %s", want)
		return "", false
	}
	return n.Value, true
}

// is reports whether n is of the kind that want tells.
func (r *reader) is(n *yaml.Node, path string, kind yaml.Kind, want string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.wrong(r.at(n, path), "aliases are not supported; want %s", want)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		r.wrong(r.at(n, path), "has no value; want %s, or leave the key out", want)
	case n.Kind != kind:
		r.wrong(r.at(n, path), "want %s", want)
	default:
		return true
	}
	return false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// brief quotes s for a message, cut when it is long.
func brief(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.Quote(s)
}
