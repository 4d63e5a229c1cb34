// Command probe is a tool plugin that asks for what it is told to ask for and
// tells what it was answered.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"unsafe"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("probe", "0.1.0", "Asks for powers.")
	tool.Want(abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall)
	tool.Register(tool.Tool{Name: "ask", Description: "Asks for powers, one after the other."}, ask)
	tool.Register(tool.Tool{Name: "say", Description: "Logs.", Effects: tool.Pure}, say)
	tool.Register(tool.Tool{Name: "spin", Description: "Does not end.", Effects: tool.Pure, Timeout: 1000 * 1000 * 1000}, spin)
	tool.Register(tool.Tool{Name: "die", Description: "Traps.", Effects: tool.Pure}, die)
}

func main() {}

// request is one call of an op.
type request struct {
	Op   string          `json:"op"`
	Head json.RawMessage `json:"head,omitempty"`
	Body string          `json:"body,omitempty"`
}

// answer is what came back: an errno, or the head and body of a reply.
type answer struct {
	Errno string          `json:"errno,omitempty"`
	Head  json.RawMessage `json:"head,omitempty"`
	Body  string          `json:"body,omitempty"`
}

type asks struct {
	Requests []request `json:"requests"`
}

func ask(_ tool.Context, a asks) ([]answer, error) {
	answers := make([]answer, 0, len(a.Requests))
	for _, r := range a.Requests {
		if len(r.Head) == 0 {
			r.Head = json.RawMessage("{}")
		}
		head, body, err := send(r.Op, abi.EncodeFrame(r.Head, []byte(r.Body)))
		if err != nil {
			answers = append(answers, answer{Errno: err.Error()})
			continue
		}
		answers = append(answers, answer{Head: head, Body: string(body)})
	}
	return answers, nil
}

func send(op string, request []byte) (head, body []byte, err error) {
	name := []byte(op)
	handle, length, err := abi.UnpackReply(call(at(name), uint32(len(name)), at(request), uint32(len(request))))
	if err != nil {
		return nil, nil, err
	}
	reply := make([]byte, length)
	if n := replyRead(handle, 0, at(reply), length); n != int32(length) {
		return nil, nil, fmt.Errorf("reply_read: %d of %d", n, length)
	}
	return abi.DecodeFrame(reply)
}

type words struct {
	Lines []string `json:"lines"`
	Times int      `json:"times,omitempty"`
}

func say(ctx tool.Context, w words) (string, error) {
	for range max(1, w.Times) {
		for _, l := range w.Lines {
			ctx.Log(abi.LevelWarn, l)
		}
	}
	return "said", nil
}

type nothing struct{}

func spin(tool.Context, nothing) (string, error) {
	for i := 0; ; i++ {
		sink = i
	}
}

var sink int

func die(tool.Context, nothing) (string, error) {
	os.Exit(3) // a panic would be a failure that the SDK reports
	return "", nil
}

func at(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

//go:wasmimport casemate_v1 call
func call(op unsafe.Pointer, opLen uint32, req unsafe.Pointer, reqLen uint32) int64

//go:wasmimport casemate_v1 reply_read
func replyRead(handle, off uint32, ptr unsafe.Pointer, n uint32) int32
