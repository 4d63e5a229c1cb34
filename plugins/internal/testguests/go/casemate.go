//go:build wasip1

package main

import (
	"runtime"
	"unsafe"

	"github.com/casemate/casemate/sdk/abi"
)

//go:wasmimport casemate_v1 input_len
func inputLen() uint32

//go:wasmimport casemate_v1 input_read
func inputRead(off uint32, ptr unsafe.Pointer, n uint32) uint32

//go:wasmimport casemate_v1 output_write
func outputWrite(ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 fail
func importFail(code, retryAfterMS int32, ptr unsafe.Pointer, n uint32)

//go:wasmexport casemate_abi_1
func marker() int32 { return 0 }

// input returns the input of the call.
func input() []byte {
	b := make([]byte, inputLen())
	n := inputRead(0, unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)))
	return b[:n]
}

// write appends b to the output and returns what an export should return.
func write(b []byte) int32 {
	return outputWrite(unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)))
}

// fail fails the call and returns what an export should return.
func fail(code abi.FailCode, text string) int32 {
	importFail(int32(code), -1, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
	return 1
}

// turn gives Go's scheduler a turn before an export returns: otherwise the
// collector's goroutines would only get one when a call waits for memory.
func turn() { runtime.Gosched() }
