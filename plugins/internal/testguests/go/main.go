//go:build wasip1

// Command go is the test guest in Go, written against the bare ABI. Every tool
// that counts does so in two places; on an instance as it was after
// initialisation both are 1. It uses no SDK.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

func main() {}

//go:wasmexport describe
func describe() int32 {
	const (
		none     = `{"type":"object"}`
		countOf  = `{"type":"object","properties":{"n":{"type":"integer","minimum":0}},"required":["n"]}`
		summands = `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"]}`
	)
	d := abi.Descriptor{
		V: abi.Version, Name: "pristine-go", Version: "0.1.0", Kinds: []string{abi.KindTool},
		WarmUp: []json.RawMessage{json.RawMessage(`{"v":1,"tool":"sum","arguments":{"a":1,"b":2}}`)},
	}
	for _, t := range []struct{ name, parameters string }{
		{"count", none},
		{"grow", none},
		{"trap", none},
		{"spin", none},
		{"echo", none},
		{"sum", summands},
		{"fib", countOf},
		{"sha256", countOf},
		{"leave", none},
	} {
		d.Tools = append(d.Tools, abi.ToolDescriptor{
			Name: t.name, Parameters: json.RawMessage(t.parameters), Effects: abi.EffectsPure,
		})
	}
	out, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return write(out)
}

//go:wasmexport tool_call
func toolCall() int32 {
	defer turn()
	var in abi.ToolCall
	if err := json.Unmarshal(input(), &in); err != nil {
		return fail(abi.FailInternal, err.Error())
	}
	run, ok := tools[in.Tool]
	if !ok {
		return fail(abi.FailNotFound, "no such tool")
	}
	value, err := run(in.Arguments)
	if err != nil {
		return fail(abi.FailInvalidArgs, err.Error())
	}
	return answer(value)
}

func answer(value any) int32 {
	output, err := json.Marshal(value)
	if err != nil {
		return fail(abi.FailInternal, err.Error())
	}
	out, err := json.Marshal(abi.ToolResult{V: abi.Version, Output: output})
	if err != nil {
		return fail(abi.FailInternal, err.Error())
	}
	return write(out)
}

var tools = map[string]func(arguments json.RawMessage) (any, error){
	"count":  func(json.RawMessage) (any, error) { return count(), nil },
	"grow":   func(json.RawMessage) (any, error) { return grow(), nil },
	"trap":   func(json.RawMessage) (any, error) { return trap(), nil },
	"spin":   func(json.RawMessage) (any, error) { return spin(), nil },
	"echo":   func(arguments json.RawMessage) (any, error) { return arguments, nil },
	"sum":    sum,
	"fib":    sized(func(n int) any { return fib(n) }),
	"sha256": sized(digest),
	"leave":  func(json.RawMessage) (any, error) { return leave(), nil },
}

// counts is what counting tools answer. Go has no word for a global of the
// module: Global is a package variable here, Memory a variable of the heap.
type counts struct {
	Memory int `json:"memory"`
	Global int `json:"global"`
}

var (
	global int
	memory *int
)

func init() { memory = new(int) } // while it runs, so that it is on the heap

func count() counts {
	*memory++
	global++
	return counts{*memory, global}
}

// kept holds what grow allocated, so that it is not collected.
var kept []byte

func grow() counts {
	kept = make([]byte, 20<<20)
	for i := 0; i < len(kept); i += 4096 {
		kept[i] = 1
	}
	return count()
}

func trap() counts {
	write([]byte(`{"v":1,`))
	panic(fmt.Sprint("half-way: ", count()))
}

func spin() counts {
	count()
	for {
		*memory++
	}
}

// leave returns while goroutines and timers of it still run.
func leave() counts {
	never := make(chan int)
	for range 10 {
		go func() { never <- count().Memory }()
		go func() {
			for {
				time.Sleep(time.Millisecond)
				count()
			}
		}()
		time.AfterFunc(time.Millisecond, func() { count() })
	}
	return count()
}

func sum(arguments json.RawMessage) (any, error) {
	var in struct{ A, B *int64 }
	if err := json.Unmarshal(arguments, &in); err != nil {
		return nil, err
	}
	if in.A == nil || in.B == nil {
		return nil, errors.New("a and b: want whole numbers")
	}
	return *in.A + *in.B, nil
}

// sized makes a tool of a function of one number, n.
func sized(f func(n int) any) func(arguments json.RawMessage) (any, error) {
	return func(arguments json.RawMessage) (any, error) {
		var in struct{ N *uint32 }
		if err := json.Unmarshal(arguments, &in); err != nil {
			return nil, err
		}
		if in.N == nil {
			return nil, errors.New("n: want a whole number, not negative")
		}
		return f(int(*in.N)), nil
	}
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

// digest hashes the bytes 0 to 250, again and again, n in all.
func digest(n int) any {
	var block [251 * 16]byte
	for i := range block {
		block[i] = byte(i % 251)
	}
	h := sha256.New()
	for ; n > len(block); n -= len(block) {
		h.Write(block[:])
	}
	h.Write(block[:n])
	return hex.EncodeToString(h.Sum(nil))
}
