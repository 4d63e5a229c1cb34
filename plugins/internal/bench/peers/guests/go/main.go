//go:build wasip1

// Command go is a guest for benchmarks, written against the bare contract. The
// first byte of its input says what to do:
//
//	{   answer the sum of the numbers in the text, as JSON
//	"   answer the input itself
//	f   a number follows: that Fibonacci number, by recursion
//	j   a number follows: so many answers to one object
//	z   a number follows: sleep so many milliseconds
//
// The tag json builds it with encoding/json, the tag extism for Extism.
package main

import (
	"strconv"
	"time"
)

func main() {}

//go:wasmexport tool_call
func toolCall() int32 {
	out, err := work(input())
	if err != nil {
		return 1
	}
	output(out)
	return 0
}

func work(in []byte) ([]byte, error) {
	if len(in) > 0 && in[0] == '{' {
		return sumUp(in)
	}
	if len(in) == 0 || in[0] == '"' {
		return in, nil
	}
	n, err := strconv.Atoi(string(in[1:]))
	if err != nil {
		return nil, err
	}
	switch in[0] {
	case 'f':
		return encode(fib(n))
	case 'j':
		return repeat(n)
	case 'z':
		time.Sleep(time.Duration(n) * time.Millisecond)
		return encode(0)
	}
	return nil, strconv.ErrSyntax
}

func sumUp(in []byte) ([]byte, error) {
	v, err := total(in)
	if err != nil {
		return nil, err
	}
	return encode(v)
}

func repeat(n int) (out []byte, err error) {
	for range n {
		if out, err = sumUp([]byte(`{"a":2,"b":3}`)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func fib(n int) uint64 {
	if n < 2 {
		return uint64(n)
	}
	return fib(n-1) + fib(n-2)
}
