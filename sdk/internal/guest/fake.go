package guest

import (
	"math/rand/v2"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// Fake is a Host for tests: one call, with its state in plain fields. It
// answers as native/1 says, with limits of its own only where a field sets
// one. The zero value grants nothing. It is not safe for concurrent use.
type Fake struct {
	In      []byte
	Granted map[string]bool   // op strings that Call may use
	KV      map[string][]byte // state of the kv ops; made by the first put
	// HTTP answers http.fetch/1, and Tools tool.call/1: head and body of a
	// reply. nil: no server, and no tool.
	HTTP    func(h abi.HTTPHead, body []byte) (abi.HTTPReply, []byte)
	Tools   func(tool string, arguments []byte) (abi.ToolReply, []byte)
	Time    time.Time // answer of Now; zero: the real one
	MaxOut  int       // cap of the output in bytes; 0: none
	Aborted bool      // Emit answers abi.ECANCELED
	Seed    uint64    // of Random
	Millis  int64     // answer of Budget for abi.BudgetMillis

	Out     []byte
	Failed  *Failure
	Lines   []Line
	Emitted [][]byte

	entropy *rand.PCG
	puts    int
	putSize int
	streams map[uint32][]byte
	handles uint32
}

// Failure is what Fail was told last.
type Failure struct {
	Code         abi.FailCode
	RetryAfterMS int64 // -1: not said
	Text         string
}

// Line is one logged line.
type Line struct {
	Level abi.Level
	Text  string
}

var _ Host = (*Fake)(nil)

// Input implements Host.
func (f *Fake) Input() []byte { return append([]byte(nil), f.In...) }

// Write implements Host.
func (f *Fake) Write(p []byte) error {
	if f.MaxOut > 0 && len(f.Out)+len(p) > f.MaxOut {
		return abi.E2BIG
	}
	f.Out = append(f.Out, p...)
	return nil
}

// Fail implements Host.
func (f *Fake) Fail(code abi.FailCode, retryAfterMS int64, text string) {
	if len(text) > abi.MaxFailText {
		text = text[:abi.MaxFailText]
	}
	f.Out = nil
	f.Failed = &Failure{Code: code, RetryAfterMS: max(-1, retryAfterMS), Text: text}
}

// Log implements Host.
func (f *Fake) Log(level abi.Level, text string) {
	f.Lines = append(f.Lines, Line{Level: level, Text: text})
}

// Emit implements Host.
func (f *Fake) Emit(kind int32, data []byte) error {
	switch {
	case kind < 0:
		return abi.EINVAL
	case f.Aborted:
		return abi.ECANCELED
	}
	f.Emitted = append(f.Emitted, append([]byte(nil), data...))
	return nil
}

// Budget implements Host; what no field limits is 2^63−1.
func (f *Fake) Budget(which abi.Budget) int64 {
	const unlimited = 1<<63 - 1
	switch which {
	case abi.BudgetMillis:
		if f.Millis > 0 {
			return f.Millis
		}
		return unlimited
	case abi.BudgetFuel:
		return unlimited
	case abi.BudgetOutput:
		if f.MaxOut > 0 {
			return int64(f.MaxOut - len(f.Out))
		}
		return unlimited
	}
	return abi.PackErrno(abi.EINVAL)
}

// Random implements Host with a stream of Seed.
func (f *Fake) Random(p []byte) {
	if f.entropy == nil {
		f.entropy = rand.NewPCG(f.Seed, 0)
	}
	for i := range p {
		p[i] = byte(f.entropy.Uint64())
	}
}

// Now implements Host.
func (f *Fake) Now() time.Time {
	if f.Time.IsZero() {
		return time.Now()
	}
	return f.Time
}
