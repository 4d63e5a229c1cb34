package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// prefix begins the names of the variables that are settings; testPrefix those
// that are read by tests only.
const (
	prefix     = "CASEMATE_"
	testPrefix = "CASEMATE_TEST_"
)

// injected matches what Kubernetes puts into the environment of every container
// when there is a Service named casemate.
var injected = regexp.MustCompile(`^CASEMATE_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_.+)?)$`)

// setting is one plain value that the file and the environment may set.
type setting struct {
	key  string // path in the file, of one to three keys
	tags string // YAML types, as in wanted
	set  func(r *reader, value string, fromFile bool) error
}

// env returns the name of the variable: log.level is CASEMATE_LOG_LEVEL.
func (s setting) env() string {
	return prefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// settings are all of them, in the order of the documentation.
var settings = slices.Concat(hostSettings, queueSettings, servingSettings)

// hostSettings are those of the host and of the sandbox.
var hostSettings = []setting{
	{"listen", "!!str", func(r *reader, v string, _ bool) error {
		r.file.Listen = v
		return checkListen(v)
	}},
	{"store", "!!str", func(r *reader, v string, fromFile bool) error {
		if p, ok := strings.CutPrefix(v, "sqlite:"); ok && fromFile && p != "" {
			v = "sqlite:" + r.path(p)
		}
		r.file.Store = v
		return checkStore(v)
	}},
	{"log.level", "!!str", func(r *reader, v string, _ bool) error {
		r.file.Log.Level = v
		return oneOf(v, "trace", "debug", "info", "warn", "error")
	}},
	{"log.format", "!!str", func(r *reader, v string, _ bool) error {
		r.file.Log.Format = v
		return oneOf(v, "text", "json")
	}},
	{"max_body_bytes", "!!int", func(r *reader, v string, _ bool) (err error) {
		r.file.MaxBodyBytes, err = number(v, 1<<30)
		return err
	}},
	whole("slots", 100_000, func(f *File) *int { return &f.Slots }),
	whole("max_reaps", 1000, func(f *File) *int { return &f.MaxReaps }),
	whole("max_failures", 1000, func(f *File) *int { return &f.MaxFailures }),
	least("lease", time.Second, func(f *File) *time.Duration { return &f.Lease }),
	span("poll", func(f *File) *time.Duration { return &f.Poll }),
	span("drain", func(f *File) *time.Duration { return &f.Drain }),
	span("timeouts.first_event", func(f *File) *time.Duration { return &f.Timeouts.FirstEvent }),
	span("timeouts.idle", func(f *File) *time.Duration { return &f.Timeouts.Idle }),
	span("timeouts.total", func(f *File) *time.Duration { return &f.Timeouts.Total }),
	{"cache_dir", "!!str", func(r *reader, v string, fromFile bool) error {
		if v == "" {
			return errors.New("want the path of a directory")
		}
		if fromFile {
			v = r.path(v)
		}
		r.file.CacheDir = v
		return checkText(v)
	}},
	sized("sandbox.idle_memory", idleSize, func(f *File) *uint64 { return &f.Sandbox.IdleMemory }),
	whole("sandbox.breaker.traps", 1_000_000, func(f *File) *int { return &f.Sandbox.Traps }),
	span("sandbox.breaker.window", func(f *File) *time.Duration { return &f.Sandbox.Window }),
	span("sandbox.breaker.open", func(f *File) *time.Duration { return &f.Sandbox.Open }),
}

func whole(key string, most int64, dst func(*File) *int) setting {
	return setting{key, "!!int", func(r *reader, v string, _ bool) error {
		n, err := number(v, most)
		*dst(&r.file) = int(n)
		return err
	}}
}

func span(key string, dst func(*File) *time.Duration) setting {
	return least(key, time.Millisecond, dst)
}

func least(key string, shortest time.Duration, dst func(*File) *time.Duration) setting {
	return setting{key, durationTags, func(r *reader, v string, _ bool) error {
		d, err := parseDuration(v, shortest, 30*24*time.Hour)
		*dst(&r.file) = d
		return err
	}}
}

func sized(key string, q quantity, dst func(*File) *uint64) setting {
	return setting{key, quantityTags, func(r *reader, v string, _ bool) error {
		n, err := q.parse(v)
		*dst(&r.file) = n
		return err
	}}
}

// keysUnder returns how to read the settings below prefix ("log." or "").
func (r *reader) keysUnder(prefix string) map[string]value {
	keys := map[string]value{}
	for _, s := range settings {
		key, ok := strings.CutPrefix(s.key, prefix)
		if !ok || strings.Contains(key, ".") {
			continue
		}
		keys[key] = func(n *yaml.Node, path string) {
			v, ok := r.scalar(n, path, s.tags)
			if !ok {
				return
			}
			r.places[s.key] = r.at(n, path)
			if err := s.set(r, v, true); err != nil {
				r.wrong(r.places[s.key], "%w", err)
			}
		}
	}
	return keys
}

// environment puts the variables over the file. A variable that looks like a
// setting and is none is refused: a misspelt limit would be no limit. An empty
// variable is as good as none, as everywhere that passes variables on.
func (r *reader) environment() {
	known := map[string]bool{}
	for _, s := range settings {
		name := s.env()
		known[name] = true
		v := r.env[name]
		if v == "" {
			continue
		}
		r.places[s.key] = place(name)
		if err := s.set(r, v, false); err != nil {
			r.wrong(place(name), "%w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, testPrefix) && !injected.MatchString(name) &&
			r.env[name] != "" && !known[name] && !r.used[name] {
			r.wrong(place(name), "no such setting; known: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
}

// exposure refuses an open door: without tenants nobody needs a key.
func (r *reader) exposure() {
	if len(r.file.Tenants) > 0 || checkListen(r.file.Listen) != nil {
		return
	}
	host, _, _ := net.SplitHostPort(r.file.Listen)
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.IsLoopback() {
		return
	}
	r.wrong(r.places["listen"], "%s is not a loopback address, and without tenants no request needs a key: "+
		"set tenants, or listen on 127.0.0.1", brief(r.file.Listen))
}

func checkListen(v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%s: want host:port, like %s", brief(v), defaultListen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s: the port is not a number from 0 to 65535", brief(v))
	}
	return checkText(host)
}

// checkStore never repeats its value: it may hold a password.
func checkStore(v string) error {
	if p, ok := strings.CutPrefix(v, "sqlite:"); ok && p != "" {
		return checkText(p)
	}
	if strings.HasPrefix(v, "postgres://") || strings.HasPrefix(v, "postgresql://") {
		if _, err := url.Parse(v); err != nil {
			return errors.New("not a URL: want postgres://user:password@host:port/database, special characters as %XX")
		}
		return nil
	}
	return errors.New("want sqlite:PATH or postgres://user:password@host:port/database")
}

func checkText(v string) error {
	if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }) {
		return fmt.Errorf("%s holds a control character or is not UTF-8", brief(v))
	}
	return nil
}

func oneOf(v string, known ...string) error {
	if slices.Contains(known, v) {
		return nil
	}
	return fmt.Errorf("%s: want %s or %s", brief(v), strings.Join(known[:len(known)-1], ", "), known[len(known)-1])
}

func parseDuration(v string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%s: want a duration from %s to %gh, like 30s", brief(v), least, most.Hours())
	}
	return d, nil
}

// number reads a number of things, from 1.
func number(v string, most int64) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s: want a whole number from 1 to %d", brief(v), most)
	}
	return n, nil
}
