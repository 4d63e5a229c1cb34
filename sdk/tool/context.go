package tool

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// Context is one call of a tool. It is worth nothing after the handler has
// returned.
type Context struct {
	host   guest.Host
	call   abi.CallInfo
	config json.RawMessage
}

// Call tells which step of which response the call works for.
func (c Context) Call() abi.CallInfo { return c.call }

// Config decodes the operator's configuration into v, which stays as it is
// when there is none.
func (c Context) Config(v any) error {
	if len(c.config) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.config, v); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// Log writes one line to the log of the step, which the tenant can read and
// the model cannot. Lines beyond the host's cap are dropped.
func (c Context) Log(level abi.Level, text string) { c.host.Log(level, text) }

// Emit reports progress to a program that embeds the host and asks for it,
// never to the client; casemate itself drops it. The meaning of kind, 0 or
// more, is the tool's own. After an abort the error
// is abi.ECANCELED: a handler should then return.
func (c Context) Emit(kind int32, data []byte) error { return c.host.Emit(kind, data) }

// Budget is what is left of a call. A field that the host does not limit is
// the largest value of its type.
type Budget struct {
	Time   time.Duration
	Fuel   int64
	Output int64 // bytes
}

// Budget asks the host what is left of this call.
func (c Context) Budget() Budget {
	ms := c.host.Budget(abi.BudgetMillis)
	const most = int64(1<<63-1) / int64(time.Millisecond)
	b := Budget{Time: 1<<63 - 1, Fuel: c.host.Budget(abi.BudgetFuel), Output: c.host.Budget(abi.BudgetOutput)}
	if ms <= most {
		b.Time = time.Duration(ms) * time.Millisecond
	}
	return b
}

// Deadline returns when the host will stop this call, by the guest's clock.
func (c Context) Deadline() time.Time {
	left := min(c.Budget().Time, 100*365*24*time.Hour)
	return c.Now().Add(left)
}

// Now returns the host's time, to the millisecond. It needs no grant; the op
// abi.OpTimeNow is for guests without WASI.
func (c Context) Now() time.Time { return c.host.Now() }

// Rand returns random numbers from the host's entropy, for which it needs no
// grant. The generators of package math/rand and the seeds of maps repeat:
// each call starts from the same state of the plugin, that after
// initialisation, in which they were seeded.
func (c Context) Rand() *rand.Rand { return rand.New(entropy{c.host}) }

// entropy is a rand.Source over the host.
type entropy struct{ host guest.Host }

// Uint64 implements rand.Source.
func (e entropy) Uint64() uint64 {
	var b [8]byte
	e.host.Random(b[:])
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}
