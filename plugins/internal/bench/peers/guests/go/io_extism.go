//go:build wasip1 && extism

package main

import "encoding/binary"

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoadU8(off uint64) uint32

//go:wasmimport extism:host/env input_load_u64
func inputLoadU64(off uint64) uint64

//go:wasmimport extism:host/env alloc
func alloc(n uint64) uint64

//go:wasmimport extism:host/env store_u8
func storeU8(off uint64, v uint32)

//go:wasmimport extism:host/env store_u64
func storeU64(off, v uint64)

//go:wasmimport extism:host/env output_set
func outputSet(off, n uint64)

func input() []byte {
	b := make([]byte, inputLength())
	i := 0
	for ; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], inputLoadU64(uint64(i)))
	}
	for ; i < len(b); i++ {
		b[i] = byte(inputLoadU8(uint64(i)))
	}
	return b
}

func output(b []byte) {
	start, n := alloc(uint64(len(b))), uint64(len(b))
	at := start
	for ; len(b) >= 8; b = b[8:] {
		storeU64(at, binary.LittleEndian.Uint64(b))
		at += 8
	}
	for _, c := range b {
		storeU8(at, uint32(c))
		at++
	}
	outputSet(start, n)
}
