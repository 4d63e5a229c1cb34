// Command waiter is a tool plugin that takes as long as it is told, on the
// first attempt of a request only, and answers with the key of its step.
package main

import (
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("waiter", "0.1.0", "Waits.")
	tool.Want(abi.OpKVGet, abi.OpKVPut)
	tool.Register(tool.Tool{Name: "wait_again", Description: "May run again.", Effects: tool.Idempotent}, wait)
	tool.Register(tool.Tool{Name: "wait_once", Description: "Must not run again.", Effects: tool.Once}, wait)
	tool.Register(tool.Tool{Name: "flaky_once", Description: "Fails after it began.", Effects: tool.Once}, flaky)
}

func main() {}

type args struct {
	MS int `json:"ms,omitempty"`
}

type answer struct {
	Key     string `json:"key"`
	Attempt int    `json:"attempt"`
}

func wait(ctx tool.Context, a args) (answer, error) {
	call := ctx.Call()
	if call.Attempt == 1 {
		time.Sleep(time.Duration(a.MS) * time.Millisecond)
	}
	return answer{Key: call.IdempotencyKey, Attempt: call.Attempt}, nil
}

func flaky(tool.Context, args) (answer, error) {
	return answer{}, tool.Transient(0, "try me again")
}
