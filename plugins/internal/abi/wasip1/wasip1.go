// Package wasip1 is the WASI preview1 that guests get: all 46 functions exist,
// so that any toolchain's output links, but there are no files, arguments,
// variables or sockets behind them. It also offers what AssemblyScript imports
// from env. It has no state: all of it is in the call's frame.
package wasip1

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// ModuleName is the import module of WASI preview1.
const ModuleName = "wasi_snapshot_preview1"

// errno is a WASI error number. Unlike those of native/1 it is not negated.
type errno uint32

const (
	success errno = 0
	badf    errno = 8
	inval   errno = 28
	nosys   errno = 52
	notdir  errno = 54
	notsock errno = 57
	notsup  errno = 58
	spipe   errno = 70
)

// outOfBounds ends the call of a guest that points outside of its memory.
const outOfBounds = frame.Fault("pointer out of bounds in a call of WASI")

// call is one call of a function.
type call struct {
	*engine.Caller
	f   *frame.Frame
	arg []uint64
}

func (c call) u32(i int) uint32 { return uint32(c.arg[i]) }

// at returns n bytes of memory at ptr; it does not return when they are not
// all inside.
func (c call) at(ptr, n uint32) []byte {
	b, ok := c.Slice(ptr, n)
	if !ok {
		engine.Abort(outOfBounds)
	}
	return b
}

func (c call) put32(ptr, v uint32) { binary.LittleEndian.PutUint32(c.at(ptr, 4), v) }
func (c call) put64(ptr uint32, v uint64) {
	binary.LittleEndian.PutUint64(c.at(ptr, 8), v)
}

// Module returns the functions of WASI preview1.
func Module() engine.HostModule {
	m := engine.HostModule{Name: ModuleName}
	for _, e := range table {
		m.Funcs = append(m.Funcs, engine.HostFunc{
			Name: e.name,
			Sig:  signature(e.params, e.result),
			Fn: func(c *engine.Caller, stack []uint64) {
				n := e.do(call{Caller: c, f: c.Data().(*frame.Frame), arg: stack})
				if e.result != "" {
					stack[0] = uint64(n)
				}
			},
		})
	}
	return m
}

// signature reads types from one letter each: i for i32, l for i64.
func signature(params, results string) wasmbin.Signature {
	types := func(s string) (out []wasmbin.ValType) {
		for _, c := range s {
			out = append(out, map[rune]wasmbin.ValType{'i': wasmbin.I32, 'l': wasmbin.I64}[c])
		}
		return out
	}
	return wasmbin.Signature{Params: types(params), Results: types(results)}
}

// table is WASI preview1: names and types are the standard's.
var table = []struct {
	name, params, result string
	do                   func(call) errno
}{
	{"args_get", "ii", "i", none},
	{"args_sizes_get", "ii", "i", noSizes},
	{"environ_get", "ii", "i", none},
	{"environ_sizes_get", "ii", "i", noSizes},
	{"clock_res_get", "ii", "i", clockRes},
	{"clock_time_get", "ili", "i", clockTime},
	{"fd_advise", "illi", "i", onFD(spipe)},
	{"fd_allocate", "ill", "i", onFD(spipe)},
	{"fd_close", "i", "i", onFD(success)},
	{"fd_datasync", "i", "i", onFD(success)},
	{"fd_fdstat_get", "ii", "i", fdstatGet},
	{"fd_fdstat_set_flags", "ii", "i", onFD(success)},
	{"fd_fdstat_set_rights", "ill", "i", onFD(success)},
	{"fd_filestat_get", "ii", "i", filestatGet},
	{"fd_filestat_set_size", "il", "i", onFD(inval)},
	{"fd_filestat_set_times", "illi", "i", onFD(inval)},
	{"fd_pread", "iiili", "i", onFD(spipe)},
	{"fd_prestat_get", "ii", "i", always(badf)},
	{"fd_prestat_dir_name", "iii", "i", always(badf)},
	{"fd_pwrite", "iiili", "i", onFD(spipe)},
	{"fd_read", "iiii", "i", fdRead},
	{"fd_readdir", "iiili", "i", onFD(notdir)},
	{"fd_renumber", "ii", "i", onFD(notsup)},
	{"fd_seek", "ilii", "i", onFD(spipe)},
	{"fd_sync", "i", "i", onFD(success)},
	{"fd_tell", "ii", "i", onFD(spipe)},
	{"fd_write", "iiii", "i", fdWrite},
	{"path_create_directory", "iii", "i", onFD(notdir)},
	{"path_filestat_get", "iiiii", "i", onFD(notdir)},
	{"path_filestat_set_times", "iiiilli", "i", onFD(notdir)},
	{"path_link", "iiiiiii", "i", onFD(notdir)},
	{"path_open", "iiiiillii", "i", onFD(notdir)},
	{"path_readlink", "iiiiii", "i", onFD(notdir)},
	{"path_remove_directory", "iii", "i", onFD(notdir)},
	{"path_rename", "iiiiii", "i", onFD(notdir)},
	{"path_symlink", "iiiii", "i", symlink},
	{"path_unlink_file", "iii", "i", onFD(notdir)},
	{"poll_oneoff", "iiii", "i", pollOneoff},
	{"proc_exit", "i", "", procExit},
	{"proc_raise", "i", "i", always(nosys)},
	{"sched_yield", "", "i", always(success)},
	{"random_get", "ii", "i", randomGet},
	{"sock_accept", "iii", "i", onFD(notsock)},
	{"sock_recv", "iiiiii", "i", onFD(notsock)},
	{"sock_send", "iiiii", "i", onFD(notsock)},
	{"sock_shutdown", "ii", "i", onFD(notsock)},
}

func always(e errno) func(call) errno { return func(call) errno { return e } }

// none writes no pointers, since there are no strings.
func none(call) errno { return success }

func noSizes(c call) errno {
	c.put32(c.u32(0), 0)
	c.put32(c.u32(1), 0)
	return success
}

func procExit(c call) errno {
	engine.Abort(frame.Exit(c.u32(0)))
	return success
}

// maxRandom bounds one random_get, in bytes. Nobody needs more at once.
const maxRandom = 1 << 20

// randomPiece is how many bytes are made between two looks at the clock. The
// host's entropy takes far longer than a copy, so a byte costs one fuel.
const randomPiece = 4 << 10

func randomGet(c call) errno {
	buf := c.at(c.u32(0), c.u32(1))
	if len(buf) > maxRandom {
		return inval
	}
	for p := range slices.Chunk(buf, randomPiece) {
		c.Spend(uint64(len(p)))
		if _, err := io.ReadFull(c.f.Rand, p); err != nil {
			engine.Abort(&frame.HostFault{Port: "random_get", Err: err})
		}
	}
	return success
}

// EnvName is the import module of AssemblyScript's two functions.
const EnvName = "env"

// maxAbortText bounds what is read of AssemblyScript's texts, in bytes.
const maxAbortText = 1 << 10

// Env returns AssemblyScript's abort(message, file, line, column) and seed().
func Env() engine.HostModule {
	return engine.HostModule{Name: EnvName, Funcs: []engine.HostFunc{
		{
			Name: "abort",
			Sig:  signature("iiii", ""),
			Fn:   func(c *engine.Caller, stack []uint64) { engine.Abort(abortFault(c, stack)) },
		},
		{
			Name: "seed",
			Sig:  wasmbin.Signature{Results: []wasmbin.ValType{wasmbin.F64}},
			Fn:   seed,
		},
	}}
}

// seed answers a number whose bits are all random, as AssemblyScript wants it.
func seed(c *engine.Caller, stack []uint64) {
	var b [8]byte
	if _, err := io.ReadFull(c.Data().(*frame.Frame).Rand, b[:]); err != nil {
		engine.Abort(&frame.HostFault{Port: "seed", Err: err})
	}
	stack[0] = binary.LittleEndian.Uint64(b[:])
}

func abortFault(c *engine.Caller, stack []uint64) frame.Fault {
	message, ok := utf16Text(c, uint32(stack[0]))
	file, ok2 := utf16Text(c, uint32(stack[1]))
	if !ok || !ok2 {
		return outOfBounds
	}
	var b strings.Builder
	b.WriteString("abort")
	if message != "" {
		b.WriteString(": " + message)
	}
	if file != "" {
		b.WriteString(" at " + file + position(uint32(stack[2]), uint32(stack[3])))
	}
	return frame.Fault(b.String())
}
