package wasip1

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/casemate/casemate/plugins/internal/engine"
)

// utf16Text reads a string object of AssemblyScript: UTF-16 at ptr, its length
// in bytes in the four before. A null pointer is an empty text; a long one is
// cut. ok is false when it is not all inside the memory.
func utf16Text(c *engine.Caller, ptr uint32) (text string, ok bool) {
	if ptr == 0 {
		return "", true
	}
	if ptr < 4 {
		return "", false
	}
	head, ok := c.Slice(ptr-4, 4)
	if !ok {
		return "", false
	}
	b, ok := c.Slice(ptr, min(binary.LittleEndian.Uint32(head), maxAbortText))
	if !ok {
		return "", false
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units)), true
}

func position(line, column uint32) string { return fmt.Sprintf(":%d:%d", line, column) }
