package main

import (
	"errors"
	"fmt"
)

// The input and the answer of the smallest call.
const (
	smallInput  = `{"a":2,"b":3}`
	smallOutput = `{"v":1,"output":5}`
	export      = "tool_call"
)

// call answers one input. The answer is good until the next call.
type call func(input []byte) ([]byte, error)

// peer is a host of guests, with one guest compiled.
type peer interface {
	// worker returns what one goroutine at a time may call: on one instance
	// whose state is kept, or on a new one for each call.
	worker(keep bool) (call, error)
	close() error
}

// way is how a guest is called.
type way struct {
	name string // in tables
	host string // whose compiled code it uses
	keep bool
}

// The ways of calling, guests and others.
var (
	wayOurs          = way{"Casemate", "casemate", true}
	wayWarm          = way{"wazero, state kept, no guards", "wazero", true}
	wayFresh         = way{"wazero, instance per call", "wazero", false}
	wayExtism        = way{"Extism go-sdk, state kept", "extism", true}
	wayExtismFresh   = way{"Extism go-sdk, instance per call", "extism", false}
	wayWasmtime      = way{"wasmtime-go, state kept", "wasmtime", true}
	wayWasmtimeFresh = way{"wasmtime-go, instance per call", "wasmtime", false}
	wayHTTP          = way{"loopback HTTP POST", "http", true}
	wayNative        = way{"native Go function", "native", true}

	guestWays = []way{wayOurs, wayWarm, wayFresh, wayExtism, wayExtismFresh, wayWasmtime, wayWasmtimeFresh}
)

// hosts open the guests of guestWays.
var hosts = map[string]func(g *guest) (peer, error){
	"casemate": func(g *guest) (peer, error) { return load(g) },
	"wazero":   openWazero,
	"extism":   openExtism,
	"wasmtime": openWasmtime,
}

// bench holds what is open.
type bench struct {
	wasm   string // directory of the guests
	rounds int
	report *report
	guests []*guest
	peers  map[string]peer // host/guest
}

// guest returns a guest by name, nil when it is not built.
func (b *bench) guest(name string) *guest {
	for _, g := range b.guests {
		if g.name == name {
			return g
		}
	}
	return nil
}

// named returns those of the guests that are built.
func (b *bench) named(names ...string) (out []*guest) {
	for _, n := range names {
		if g := b.guest(n); g != nil {
			out = append(out, g)
		}
	}
	return out
}

// peer opens a guest on a host once; g is nil for the ways without guests.
func (b *bench) peer(w way, g *guest) (peer, error) {
	key := w.host
	if g != nil {
		key += "/" + g.name
	}
	if p, ok := b.peers[key]; ok {
		return p, nil
	}
	var p peer
	var err error
	switch w {
	case wayNative:
		p = native{}
	case wayHTTP:
		p, err = newLoopback()
	default:
		p, err = hosts[w.host](g)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	b.peers[key] = p
	return p, nil
}

func (b *bench) close() error {
	var errs []error
	for key, p := range b.peers {
		if err := p.close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// has reports whether a guest was built for a way.
func (g *guest) has(w way) bool { return w != wayExtism && w != wayExtismFresh || g.extism != nil }

// worker returns a worker that has answered what it should.
func (b *bench) worker(w way, g *guest) (call, error) {
	p, err := b.peer(w, g)
	if err != nil {
		return nil, err
	}
	c, err := p.worker(w.keep)
	if err != nil {
		return nil, err
	}
	for range 2 { // twice: what the first call leaves behind must not matter
		for in, want := range map[string]string{smallInput: smallOutput, `"abc"`: `"abc"`} {
			got, err := c([]byte(in))
			if err != nil {
				return nil, err
			}
			if string(got) != want {
				return nil, fmt.Errorf("answered %.60q, not %q", got, want)
			}
		}
	}
	return c, nil
}

// scenario times one input on so many workers.
func (b *bench) scenario(w way, g *guest, input string, workers int) (*scenario, error) {
	s := &scenario{name: w.name}
	if g != nil {
		s.name += ", " + g.name
	}
	for range workers {
		c, err := b.worker(w, g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		in := []byte(input)
		s.workers = append(s.workers, func() error {
			out, err := c(in)
			if err == nil && len(out) == 0 {
				err = errors.New("no answer")
			}
			return err
		})
	}
	return s, nil
}
