package guest

import (
	"encoding/json"
	"math/rand/v2"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
)

// Fake is a Host for tests: one call, with its state in plain fields. It
// answers as native/1 says, with limits of its own only where a field sets
// one. The zero value grants nothing. It is not safe for concurrent use.
type Fake struct {
	In      []byte
	Granted map[string]bool   // op strings that Call may use
	KV      map[string][]byte // state of kv.get/1 and kv.put/1; made by the first put
	MaxOut  int               // cap of the output in bytes; 0: none
	Aborted bool              // Emit answers abi.ECANCELED
	Seed    uint64            // of Random
	Millis  int64             // answer of Budget for abi.BudgetMillis

	Out     []byte
	Failed  *Failure
	Lines   []Line
	Emitted [][]byte

	entropy *rand.PCG
	puts    int
	putSize int
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

// Call implements Host for the kv ops.
func (f *Fake) Call(op string, request []byte) ([]byte, error) {
	if op != abi.OpKVGet && op != abi.OpKVPut {
		return nil, abi.ENOSYS
	}
	if !f.Granted[op] {
		return nil, abi.EPERM
	}
	head, body, err := abi.DecodeFrame(request)
	if err != nil {
		return nil, abi.EINVAL
	}
	status, value := f.kv(op, head, body)
	reply, err := json.Marshal(abi.ReplyHead{Status: status})
	if err != nil {
		return nil, abi.EIO
	}
	return abi.EncodeFrame(reply, value), nil
}

func (f *Fake) kv(op string, head, body []byte) (status int, value []byte) {
	var h abi.KVHead
	if json.Unmarshal(head, &h) != nil || !validKey(h.Key) {
		return abi.StatusBadKey, nil
	}
	if op == abi.OpKVGet {
		value, ok := f.KV[h.Key]
		if !ok {
			return abi.StatusNoEntry, nil
		}
		return abi.StatusFound, value
	}
	size := len(h.Key) + len(body)
	switch {
	case len(body) > abi.MaxKVValue:
		return abi.StatusTooLarge, nil
	case f.puts >= abi.MaxKVPuts || f.putSize+size > abi.MaxKVPutBytes:
		return abi.StatusFull, nil
	}
	f.puts++
	f.putSize += size
	if f.KV == nil {
		f.KV = make(map[string][]byte)
	}
	f.KV[h.Key] = append([]byte{}, body...)
	return abi.StatusStored, nil
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

func validKey(key string) bool {
	if len(key) == 0 || len(key) > abi.MaxKVKey || !utf8.ValidString(key) {
		return false
	}
	for _, c := range []byte(key) {
		if c == 0 {
			return false
		}
	}
	return true
}
