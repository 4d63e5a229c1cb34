package wasip1

import (
	"encoding/binary"
	"math"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
)

// The three descriptors that exist.
const (
	stdin  = 0
	stdout = 1
	stderr = 2
)

const (
	charDevice = 2 // filetype: line-buffered by C libraries, so lines reach the log
	rightRead  = 1 << 1
	rightWrite = 1 << 6
)

// maxVectors bounds the vectors of one read or write.
const maxVectors = 1024

// onFD answers e for the three descriptors and badf for any other.
func onFD(e errno) func(call) errno {
	return func(c call) errno {
		if c.u32(0) > stderr {
			return badf
		}
		return e
	}
}

// symlink has its descriptor second.
func symlink(c call) errno {
	if c.u32(2) > stderr {
		return badf
	}
	return notdir
}

func fdstatGet(c call) errno {
	fd := c.u32(0)
	if fd > stderr {
		return badf
	}
	b := c.at(c.u32(1), 24)
	clear(b)
	b[0] = charDevice
	right := uint64(rightWrite)
	if fd == stdin {
		right = rightRead
	}
	binary.LittleEndian.PutUint64(b[8:], right)
	return success
}

func filestatGet(c call) errno {
	if c.u32(0) > stderr {
		return badf
	}
	b := c.at(c.u32(1), 64)
	clear(b)
	b[16] = charDevice
	binary.LittleEndian.PutUint64(b[24:], 1) // links
	return success
}

// vectors returns the memory of n vectors at ptr.
func (c call) vectors(ptr, n uint32) ([][]byte, errno) {
	if n > maxVectors {
		return nil, inval
	}
	c.Spend(8 * uint64(n) / engine.BytesPerFuel)
	list := c.at(ptr, 8*n)
	out := make([][]byte, n)
	for i := range out {
		v := list[8*i:]
		out[i] = c.at(binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:]))
	}
	return out, success
}

func fdRead(c call) errno {
	switch fd := c.u32(0); {
	case fd > stderr:
		return badf
	case fd != stdin:
		return notsup
	}
	if _, e := c.vectors(c.u32(1), c.u32(2)); e != success {
		return e
	}
	c.put32(c.u32(3), 0) // end of file
	return success
}

// fdWrite takes everything, though the log may not keep it: vectors that
// overlap can add up to many times the memory, so nothing is done, or paid for,
// once the log is full.
func fdWrite(c call) errno {
	fd := c.u32(0)
	switch {
	case fd > stderr:
		return badf
	case fd == stdin:
		return notsup
	}
	vectors, e := c.vectors(c.u32(1), c.u32(2))
	if e != success {
		return e
	}
	var total uint64
	for _, v := range vectors {
		total += uint64(len(v))
	}
	if total > math.MaxInt32 {
		return inval
	}
	stream := frame.Stdout
	if fd == stderr {
		stream = frame.Stderr
	}
	c.print(stream, vectors)
	c.put32(c.u32(3), uint32(total))
	return success
}

// print logs vectors until the log is full.
func (c call) print(stream int, vectors [][]byte) {
	for _, v := range vectors {
		for p := range c.Pieces(v) {
			if !c.f.Log.Print(stream, p) {
				return
			}
		}
	}
}
