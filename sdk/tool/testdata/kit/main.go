// Command kit is a plugin for the tests of the SDK: a tool and a retry policy
// in one module, with a tool call that does what its argument says. It is
// built by the tests only.
package main

import (
	"strings"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("kit", "0.1.0", "Does what it is told.")
	policy.Plugin("kit", "0.1.0", "Does what it is told.")
	tool.Want(abi.OpKVGet, abi.OpKVPut)
	tool.Register(tool.Tool{Name: "do", Description: "Does it."}, do)
	policy.Retry(func(q abi.RetryQuestion) (abi.RetryAnswer, error) {
		return policy.Again(time.Duration(q.NowMS)*time.Millisecond, "again"), nil
	})
}

func main() {}

type args struct {
	What string `json:"what"`
}

var calls int // stays 0 before every call: each finds the state after init

func do(ctx tool.Context, a args) (any, error) {
	calls++
	switch a.What {
	case "calls":
		return calls, nil
	case "log":
		ctx.Log(abi.LevelWarn, "a line")
		println("printed")
		return "logged", nil
	case "emit":
		return "emitted", ctx.Emit(7, []byte("half"))
	case "budget":
		b := ctx.Budget()
		return b.Time > 0 && b.Time <= 30*time.Second && b.Output == 1<<20, nil
	case "random":
		return ctx.Rand().Uint64()&(1<<53-1) | 1, nil
	case "panic":
		panic("told to")
	case "panic elsewhere":
		go func() { panic("on another goroutine") }()
		time.Sleep(time.Second)
		return "not reached", nil
	case "sleep":
		start := time.Now()
		time.Sleep(20 * time.Millisecond)
		return time.Since(start) >= 20*time.Millisecond, nil
	case "transient":
		return nil, tool.Transient(1500*time.Millisecond, "busy")
	case "long text":
		return nil, tool.Permanent("%s", strings.Repeat("x", 10_000))
	case "large output":
		return strings.Repeat("x", 2<<20), nil
	case "large state":
		return nil, tool.KV(ctx).Put("k", make([]byte, abi.MaxKVValue+1))
	case "state":
		if err := tool.KV(ctx).Put("k", []byte("a\x00b")); err != nil {
			return nil, err
		}
		value, ok, err := tool.KV(ctx).Get("k")
		return ok && string(value) == "a\x00b", err
	}
	return ctx.Call(), nil
}
