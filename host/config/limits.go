package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Limits bound one call of a plugin. Zero was not set: the host has a default
// for each kind of plugin.
type Limits struct {
	Fuel     uint64
	Wall     time.Duration
	Memory   uint64 // bytes
	Output   int    // bytes
	LogLines int
	LogBytes int
	Emits    int
	Calls    int // of capabilities
}

// quantity is a number that may be written with a unit.
type quantity struct {
	units       []unit // the largest first
	least, most uint64
	like        string // an example
}

type unit struct {
	name string
	size uint64
}

var (
	bytesOf = []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
	fuelOf  = []unit{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}}
)

var (
	fuelOfCall   = quantity{fuelOf, 1e3, 1e15, "500M"}
	fuelOfMinute = quantity{fuelOf, 1e3, 1e15, "50G"}
	memorySize   = quantity{bytesOf, 64 << 10, 4 << 30, "64MiB"}
	outputSize   = quantity{bytesOf, 1, 256 << 20, "1MiB"}
	logSize      = quantity{bytesOf, 1, 64 << 20, "256KiB"}
	tokensOf     = quantity{fuelOf, 1, 1e9, "128k"}
	idleSize     = quantity{bytesOf, 1 << 20, 1 << 40, "256MiB"}
)

// parse reads a whole number with or without one of the units.
func (q quantity) parse(s string) (uint64, error) {
	digits, size := s, uint64(1)
	for _, u := range q.units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, size = rest, u.size
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > math.MaxUint64/size || n*size < q.least || n*size > q.most {
		return 0, fmt.Errorf("%s: want a whole number from %s to %s, plain or with %s, like %s",
			brief(s), q.text(q.least), q.text(q.most), q.names(), q.like)
	}
	return n * size, nil
}

// text writes n with the largest unit that leaves it whole.
func (q quantity) text(n uint64) string {
	for _, u := range q.units {
		if n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return strconv.FormatUint(n, 10)
}

// names lists the units, the smallest first.
func (q quantity) names() string {
	var all []string
	for _, u := range slices.Backward(q.units) {
		all = append(all, u.name)
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// quantityTags are the YAML types of a quantity.
const quantityTags = "!!int !!str"

// amount reads a quantity.
func amount[T int | uint64](r *reader, dst *T, q quantity) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, quantityTags)
		if !ok {
			return
		}
		v, err := q.parse(s)
		if err != nil {
			r.wrong(r.at(n, path), "%w", err)
			return
		}
		*dst = T(v)
	}
}

// durationTags are the YAML types of a time. A number has no unit, which is
// told together with the bounds.
const durationTags = "!!str !!int"

// duration reads a time from least to most.
func (r *reader) duration(dst *time.Duration, least, most time.Duration) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, durationTags)
		if !ok {
			return
		}
		d, err := parseDuration(s, least, most)
		if err != nil {
			r.wrong(r.at(n, path), "%w", err)
			return
		}
		*dst = d
	}
}

// maxWall is the longest that a call of a plugin may be given: a request does
// not live longer.
const maxWall = 24 * time.Hour

// limits reads the bounds of a plugin's calls.
func (r *reader) limits(l *Limits) value {
	return func(n *yaml.Node, path string) {
		r.object(n, path, map[string]value{
			"fuel":      amount(r, &l.Fuel, fuelOfCall),
			"wall":      r.duration(&l.Wall, time.Millisecond, maxWall),
			"memory":    amount(r, &l.Memory, memorySize),
			"output":    amount(r, &l.Output, outputSize),
			"log_lines": r.count(&l.LogLines),
			"log_bytes": amount(r, &l.LogBytes, logSize),
			"emits":     r.count(&l.Emits),
			"calls":     r.count(&l.Calls),
		})
	}
}

// pluginLimits reads the bounds that a tenant's calls have in place of a
// plugin's own, by the plugin's name.
func (r *reader) pluginLimits(dst *map[string]Limits) value {
	return func(n *yaml.Node, path string) {
		r.mapping(n, path, namesPlugin, func(name string, n *yaml.Node, path string) {
			var l Limits
			r.limits(&l)(n, path)
			if *dst == nil {
				*dst = map[string]Limits{}
			}
			(*dst)[name] = l
		})
	}
}

// namesPlugin reports why no plugin can have the name.
func namesPlugin(name string) error {
	if name == agentsLabel {
		return errors.New("agents are no plugin: they are bounded by max_model_calls")
	}
	return matches(pluginName)(name)
}

// agentsLabel stands for the agents where a plugin's name may stand.
const agentsLabel = "agents"
