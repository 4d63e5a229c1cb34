package wasmgen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

func seed(i int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(i)) }

func TestSameSeedSameModule(t *testing.T) {
	for i := range 50 {
		if !bytes.Equal(Generate(seed(i)), Generate(seed(i))) {
			t.Errorf("seed %d: two modules", i)
		}
	}
	if bytes.Equal(Generate(seed(1)), Generate(seed(2))) {
		t.Error("two seeds, one module")
	}
}

// TestEveryInstruction wants every instruction of version 2 in some module.
func TestEveryInstruction(t *testing.T) {
	used := map[uint32]int{}
	for i := range 2500 {
		m := newModule(seed(i))
		m.bytes()
		for code := range m.used {
			used[code]++
		}
	}
	var missing []string
	for code := range instructions() {
		if used[code] == 0 {
			missing = append(missing, fmt.Sprintf("%#x", code))
		}
		delete(used, code)
	}
	if len(missing) > 0 {
		t.Errorf("no module has %s", strings.Join(missing, " "))
	}
	for code := range used {
		t.Errorf("%#x is no instruction", code)
	}
}

// instructions returns the opcodes of version 2 but end and else, which are in
// every block.
func instructions() map[uint32]bool {
	all := map[uint32]bool{}
	add := func(first, last uint32, but ...uint32) {
		for code := first; code <= last; code++ {
			all[code] = true
		}
		for _, code := range but {
			delete(all, code)
		}
	}
	add(0x00, 0x11, 0x06, 0x07, 0x08, 0x09, 0x0a)
	add(0x1a, 0x1c)
	add(0x20, 0x26)
	add(0x28, 0xc4)
	add(0xd0, 0xd2)
	add(0xfc0000, 0xfc0011)
	add(0xfd0000, 0xfd00ff, 0xfd009a, 0xfd00a2, 0xfd00a5, 0xfd00a6, 0xfd00af, 0xfd00b0, 0xfd00b2, 0xfd00b3,
		0xfd00b4, 0xfd00bb, 0xfd00c2, 0xfd00c5, 0xfd00c6, 0xfd00cf, 0xfd00d0, 0xfd00d2, 0xfd00d3, 0xfd00d4,
		0xfd00e2, 0xfd00ee)
	return all
}
