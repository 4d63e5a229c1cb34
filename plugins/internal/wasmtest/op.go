package wasmtest

// Opcodes without operands.
var (
	Unreachable = []byte{0x00}
	End         = []byte{0x0b}
	Return      = []byte{0x0f}
	Drop        = []byte{0x1a}
	I32Add      = []byte{0x6a}
	I32Eqz      = []byte{0x45}
	I32Load     = []byte{0x28, 2, 0}
	I32Load8    = []byte{0x2d, 0, 0}
	I64Load     = []byte{0x29, 3, 0}
	I32Store    = []byte{0x36, 2, 0}
	I32Store8   = []byte{0x3a, 0, 0}
	I64Store    = []byte{0x37, 3, 0}
	MemoryGrow  = []byte{0x40, 0}
	MemoryCopy  = []byte{0xfc, 10, 0, 0}
	MemoryFill  = []byte{0xfc, 11, 0}
	Else        = []byte{0x05}
	// Loop begins a loop and Block a block; If takes an i32. All are without
	// results and end with End.
	Block = []byte{0x02, 0x40}
	Loop  = []byte{0x03, 0x40}
	If    = []byte{0x04, 0x40}
)

// I32 is i32.const.
func I32(v int32) []byte { return sleb(0x41, int64(v)) }

// I64 is i64.const.
func I64(v int64) []byte { return sleb(0x42, v) }

// Call calls the function with index f.
func Call(f uint32) []byte { return cat([]byte{0x10}, u32(f)) }

// Br branches out of, or to the start of, the n-th enclosing block.
func Br(n uint32) []byte { return cat([]byte{0x0c}, u32(n)) }

// BrIf is Br on condition.
func BrIf(n uint32) []byte { return cat([]byte{0x0d}, u32(n)) }

// LocalGet pushes a local.
func LocalGet(n uint32) []byte { return cat([]byte{0x20}, u32(n)) }

// LocalSet pops a local.
func LocalSet(n uint32) []byte { return cat([]byte{0x21}, u32(n)) }

// GlobalGet pushes a global.
func GlobalGet(n uint32) []byte { return cat([]byte{0x23}, u32(n)) }

// GlobalSet pops a global.
func GlobalSet(n uint32) []byte { return cat([]byte{0x24}, u32(n)) }

// LocalTee is LocalSet that leaves the value.
func LocalTee(n uint32) []byte { return cat([]byte{0x22}, u32(n)) }

// BrTable branches out of the n-th enclosing block for an operand of n, and
// out of the last one for a larger one.
func BrTable(n ...uint32) []byte {
	out := cat([]byte{0x0e}, u32(uint32(len(n))-1))
	for _, l := range n {
		out = append(out, u32(l)...)
	}
	return out
}

// CallIndirect calls the element of table 0 that is on the stack as a function
// of the type with index t.
func CallIndirect(t uint32) []byte { return cat([]byte{0x11}, u32(t), []byte{0}) }

// RefFunc pushes a reference to the function with index f.
func RefFunc(f uint32) []byte { return cat([]byte{0xd2}, u32(f)) }

// TableGrow grows a table of functions by n empty elements and pushes its size
// before, or −1.
func TableGrow(table uint32, n int32) []byte {
	return cat([]byte{0xd0, 0x70}, I32(n), []byte{0xfc, 0x0f}, u32(table))
}

// Seq joins instructions.
func Seq(b ...[]byte) []byte { return cat(b...) }

func sleb(op byte, v int64) []byte {
	out := []byte{op}
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}
