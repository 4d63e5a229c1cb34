// Command waiter is a tool plugin that takes as long as it is told, on the
// first attempt of a request only, and answers with the key of its step. Told
// of a URL, it posts to it first.
package main

import (
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("waiter", "0.1.0", "Waits.")
	tool.Want(abi.OpKVGet, abi.OpKVPut, abi.OpHTTPFetch, abi.OpToolCall)
	tool.Register(tool.Tool{Name: "wait_again", Description: "May run again.", Effects: tool.Idempotent}, wait)
	tool.Register(tool.Tool{Name: "wait_once", Description: "Must not run again.", Effects: tool.Once}, wait)
	tool.Register(tool.Tool{Name: "flaky_once", Description: "Fails after it began.", Effects: tool.Once}, flaky)
	tool.Register(tool.Tool{Name: "relay", Description: "Has others wait.", Effects: tool.Idempotent}, relay)
}

func main() {}

type args struct {
	MS  int    `json:"ms,omitempty"`
	URL string `json:"url,omitempty"`
}

// post changes something outside, if there is where.
func (a args) post(ctx tool.Context) error {
	if a.URL == "" {
		return nil
	}
	res, err := ctx.HTTP(tool.Request{Method: "POST", URL: a.URL})
	if err == nil && res.Status != 200 {
		return tool.Permanent("the server answered %d", res.Status)
	}
	return err
}

type answer struct {
	Key     string `json:"key"`
	Attempt int    `json:"attempt"`
}

func wait(ctx tool.Context, a args) (answer, error) {
	if err := a.post(ctx); err != nil {
		return answer{}, err
	}
	call := ctx.Call()
	if call.Attempt == 1 {
		time.Sleep(time.Duration(a.MS) * time.Millisecond)
	}
	return answer{Key: call.IdempotencyKey, Attempt: call.Attempt}, nil
}

func flaky(ctx tool.Context, a args) (answer, error) {
	if err := a.post(ctx); err != nil {
		return answer{}, err
	}
	return answer{}, tool.Transient(0, "try me again")
}

// relay has one tool end and another one take its time.
func relay(ctx tool.Context, a args) (string, error) {
	first, err := ctx.CallTool("wait_once", args{URL: a.URL})
	if err != nil {
		return "", err
	}
	second, err := ctx.CallTool("wait_again", args{MS: a.MS})
	return first.Text + " then " + second.Text, err
}
