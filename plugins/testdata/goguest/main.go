// Command goguest is a plugin written against the bare ABI, for the tests of
// package plugins: what Go's runtime does inside the sandbox. It uses no SDK.
package main

import (
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"
	"unsafe"
)

//go:wasmimport casemate_v1 input_len
func inputLen() uint32

//go:wasmimport casemate_v1 input_read
func inputRead(off uint32, ptr unsafe.Pointer, n uint32) uint32

//go:wasmimport casemate_v1 output_write
func outputWrite(ptr unsafe.Pointer, n uint32) int32

func write(b []byte) int32 { return outputWrite(unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))) }

func input() []byte {
	b := make([]byte, inputLen())
	inputRead(0, unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)))
	return b
}

//go:wasmexport casemate_abi_1
func marker() int32 { return 1 }

//go:wasmexport describe
func describe() int32 {
	return write([]byte(`{"v":1,"name":"goguest","version":"1.2.3","kinds":["tool","route"],` +
		`"tools":[{"name":"run","description":"","parameters":{"type":"object"},"effects":"pure"}],"future":{"b":1,"a":[2,1]}}`))
}

var calls int

//go:wasmexport tool_call
func toolCall() int32 { return run() }

//go:wasmexport route
func route() int32 { return run() }

func run() int32 {
	calls++
	var q struct {
		Do string
		N  int
	}
	if err := json.Unmarshal(input(), &q); err != nil {
		panic(err)
	}
	out := map[string]any{"calls": calls}
	switch q.Do {
	case "garbage":
		var keep [16][]byte
		for i := range q.N {
			keep[i%len(keep)] = make([]byte, 10_000)
		}
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		out["collected"] = s.NumGC > 0
	case "sleep":
		begin := time.Now()
		time.Sleep(time.Duration(q.N) * time.Millisecond)
		out["slept_ms"] = time.Since(begin).Milliseconds()
	case "world":
		var b [8]byte
		crand.Read(b[:])
		out["now_ms"] = time.Now().UnixMilli()
		out["entropy"] = fmt.Sprintf("%x", b)
		out["rand"] = rand.Uint64()
		out["args"], out["env"] = len(os.Args), len(os.Environ())
		_, err := os.ReadFile("/etc/passwd")
		out["file"] = err != nil
	case "goroutines":
		sum := make(chan int)
		for i := range q.N {
			go func() { runtime.Gosched(); sum <- i }()
		}
		total := 0
		for range q.N {
			total += <-sum
		}
		out["total"] = total
	case "print":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
	case "panic":
		panic("the guest's own words")
	case "oom":
		var keep [][]byte
		for {
			b := make([]byte, 1<<20)
			keep = append(keep, b)
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return write(b)
}

func main() {}
