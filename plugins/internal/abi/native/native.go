// Package native is the host side of guest ABI native/1: the imports of
// casemate_v1 over one call frame, and what a module must export. It starts no
// guest and grants nothing.
package native

import (
	"errors"
	"math"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/sdk/abi"
)

// maxOp is the longest op string that is looked up, in bytes.
const maxOp = 256

// outOfBounds ends the call of a guest that points outside of its memory.
const outOfBounds = frame.Fault("pointer out of bounds in a call of the host")

// call is one call of an import.
type call struct {
	*engine.Caller
	f   *frame.Frame
	arg []uint64
}

func (c call) u32(i int) uint32 { return uint32(c.arg[i]) }
func (c call) i32(i int) int32  { return int32(uint32(c.arg[i])) }

// bytes returns the memory that arguments i and i+1 point to; it does not
// return when they point outside.
func (c call) bytes(i int) []byte {
	b, ok := c.Slice(c.u32(i), c.u32(i+1))
	if !ok {
		engine.Abort(outOfBounds)
	}
	return b
}

// pay debits what it costs to copy n bytes at once.
func (c call) pay(n int) { c.Spend(uint64(n) / engine.BytesPerFuel) }

func errno(e abi.Errno) int64 { return abi.PackErrno(e) }

// Module returns the imports of native/1. Their names and signatures are
// frozen; a new power is a new op of call.
func Module() engine.HostModule {
	const i32, i64 = wasmbin.I32, wasmbin.I64
	none := []wasmbin.ValType(nil)
	one := func(t wasmbin.ValType) []wasmbin.ValType { return []wasmbin.ValType{t} }
	types := func(t ...wasmbin.ValType) []wasmbin.ValType { return t }

	return engine.HostModule{Name: abi.Module, Funcs: []engine.HostFunc{
		fn(abi.ImportInputLen, none, one(i32), inputLen),
		fn(abi.ImportInputRead, types(i32, i32, i32), one(i32), inputRead),
		fn(abi.ImportOutputWrite, types(i32, i32), one(i32), outputWrite),
		fn(abi.ImportFail, types(i32, i32, i32, i32), none, fail),
		fn(abi.ImportLog, types(i32, i32, i32), none, log),
		emitFunc(types(i32, i32, i32), one(i32)),
		fn(abi.ImportCall, types(i32, i32, i32, i32), one(i64), capabilityCall),
		fn(abi.ImportReplyRead, types(i32, i32, i32, i32), one(i32), replyRead),
		fn(abi.ImportStreamRead, types(i32, i32, i32), one(i32), streamRead),
		fn(abi.ImportStreamClose, types(i32), none, streamClose),
		fn(abi.ImportBudget, types(i32), one(i64), budget),
	}}
}

// fn makes an import of a function that answers a number; without results the
// number is dropped.
func fn(name string, params, results []wasmbin.ValType, do func(call) int64) engine.HostFunc {
	return engine.HostFunc{
		Name: name,
		Sig:  wasmbin.Signature{Params: params, Results: results},
		Fn: func(c *engine.Caller, stack []uint64) {
			v := do(call{Caller: c, f: c.Data().(*frame.Frame), arg: stack})
			switch {
			case len(results) == 0:
			case results[0] == wasmbin.I32:
				stack[0] = uint64(uint32(int32(v)))
			default:
				stack[0] = uint64(v)
			}
		},
	}
}

// emitFunc makes the import that a guest learns of an abort by.
func emitFunc(params, results []wasmbin.ValType) engine.HostFunc {
	f := fn(abi.ImportEmit, params, results, emit)
	f.SeesCancel = true
	return f
}

func inputLen(c call) int64 { return int64(len(c.f.Input)) }

func inputRead(c call) int64 {
	return c.readAt(c.bytes(1), c.f.Input, c.u32(0))
}

// readAt copies src from off into dst and returns how much.
func (c call) readAt(dst, src []byte, off uint32) int64 {
	if uint64(off) >= uint64(len(src)) {
		return 0
	}
	src = src[off:]
	n := min(len(dst), len(src), math.MaxInt32) // more is no result
	for p := range c.Pieces(src[:n]) {
		dst = dst[copy(dst, p):]
	}
	return int64(n)
}

func outputWrite(c call) int64 {
	p := c.bytes(0)
	if e := c.f.Room(len(p)); e != 0 {
		return errno(e)
	}
	for part := range c.Pieces(p) {
		c.f.Write(part)
	}
	return 0
}

func fail(c call) int64 {
	text := c.bytes(2)
	text = text[:min(len(text), 2*abi.MaxFailText)] // enough to cut it between runes
	c.pay(len(text))
	c.f.Fail(abi.FailCode(c.i32(0)), int64(c.i32(1)), text)
	return 0
}

func log(c call) int64 {
	text := c.bytes(1)
	text = text[:min(len(text), 2*frame.MaxLine)]
	c.pay(len(text))
	c.f.Log.Add(abi.Level(c.i32(0)), text)
	return 0
}

func emit(c call) int64 {
	data := c.bytes(1)
	c.pay(min(len(data), frame.MaxEmit))
	e, err := c.f.Progress(c.Context(), c.i32(0), data)
	if err != nil {
		engine.Abort(err)
	}
	return errno(e)
}

func capabilityCall(c call) int64 {
	op, req := c.bytes(0), c.bytes(2)
	switch {
	case c.f.Powerless:
		return errno(abi.EPERM)
	case c.f.Caps == nil:
		return errno(abi.ENOSYS)
	}
	op = op[:min(len(op), maxOp)]
	c.f.Caps.Spend = c.Spend
	v, err := c.f.Caps.Call(c.Context(), string(op), req)
	if err != nil {
		c.abort(abi.ImportCall, err)
	}
	return v
}

// abort ends the call for an error of its session.
func (c call) abort(port string, err error) {
	var broken *hostfn.PortError
	switch {
	case errors.As(err, &broken):
		err = &frame.HostFault{Port: broken.Op, Err: broken.Err}
	case c.Context().Err() != nil:
		err = engine.Stopped(c.Context())
	default:
		err = &frame.HostFault{Port: port, Err: err}
	}
	engine.Abort(err)
}

func replyRead(c call) int64 {
	dst := c.bytes(2)
	if c.f.Caps == nil {
		return errno(abi.EBADF)
	}
	reply, ok := c.f.Caps.Reply(c.u32(0))
	if !ok {
		return errno(abi.EBADF)
	}
	return c.readAt(dst, reply, c.u32(1))
}

func streamRead(c call) int64 {
	dst := c.bytes(1)
	if c.f.Caps == nil {
		return errno(abi.EBADF)
	}
	c.f.Caps.Spend = c.Spend
	n, e, err := c.f.Caps.StreamRead(c.Context(), c.u32(0), dst)
	switch {
	case err != nil:
		c.abort(abi.ImportStreamRead, err)
	case e != 0:
		return errno(e)
	}
	return int64(n)
}

func streamClose(c call) int64 {
	if c.f.Caps != nil {
		c.f.Caps.Close(c.u32(0))
	}
	return 0
}

func budget(c call) int64 {
	v, ok := c.f.Budget(abi.Budget(c.i32(0)), c.FuelLeft())
	if !ok {
		return errno(abi.EINVAL)
	}
	return v
}
