//go:build wasip1 && !extism

package main

import "unsafe"

//go:wasmimport casemate_v1 input_len
func inputLen() uint32

//go:wasmimport casemate_v1 input_read
func inputRead(off uint32, ptr unsafe.Pointer, n uint32) uint32

//go:wasmimport casemate_v1 output_write
func outputWrite(ptr unsafe.Pointer, n uint32) int32

func input() []byte {
	b := make([]byte, inputLen())
	inputRead(0, unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)))
	return b
}

func output(b []byte) { outputWrite(unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))) }

//go:wasmexport casemate_abi_1
func marker() int32 { return 1 }

//go:wasmexport describe
func describe() int32 {
	output([]byte(`{"v":1,"name":"` + name + `","version":"1.0.0","kinds":["tool"],` +
		`"tools":[{"name":"bench","description":"Sums.","parameters":{"type":"object"},"effects":"pure"}],` +
		`"warm_up":[{"tool":"bench","arguments":{"a":1,"b":2}},{"tool":"bench","arguments":{"a":3,"b":4}}]}`))
	return 0
}
