package guest

import "unsafe"

// The imports. Each is a plain call: the host copies and never calls back.

//go:wasmimport casemate_v1 input_len
func inputLen() int32

//go:wasmimport casemate_v1 input_read
func inputRead(off uint32, ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 output_write
func outputWrite(ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 fail
func fail(code, retryAfterMS int32, ptr unsafe.Pointer, n uint32)

//go:wasmimport casemate_v1 log
func logLine(level int32, ptr unsafe.Pointer, n uint32)

//go:wasmimport casemate_v1 emit
func emit(kind int32, ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 call
func call(op unsafe.Pointer, opLen uint32, req unsafe.Pointer, reqLen uint32) int64

//go:wasmimport casemate_v1 reply_read
func replyRead(handle, off uint32, ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 stream_read
func streamRead(handle uint32, ptr unsafe.Pointer, n uint32) int32

//go:wasmimport casemate_v1 stream_close
func streamClose(handle uint32)

//go:wasmimport casemate_v1 budget
func budget(which int32) int64

//go:wasmimport wasi_snapshot_preview1 random_get
func randomGet(ptr unsafe.Pointer, n uint32) uint32
