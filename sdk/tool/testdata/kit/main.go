// Command kit is a plugin for the tests of the SDK: a tool and a retry policy
// in one module, with a tool call that does what its argument says. It is
// built by the tests only.
package main

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("kit", "0.1.0", "Does what it is told.")
	policy.Plugin("kit", "0.1.0", "Does what it is told.")
	tool.Want(abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall)
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
		return nil, ctx.KV().Put("k", make([]byte, abi.MaxKVValue+1))
	case "state":
		if err := ctx.KV().Put("k", []byte("a\x00b")); err != nil {
			return nil, err
		}
		value, ok, err := ctx.KV().Get("k")
		return ok && string(value) == "a\x00b", err
	}
	return ask(ctx, a.What)
}

// ask uses the powers that reach outside.
func ask(ctx tool.Context, what string) (any, error) {
	switch what {
	case "list":
		if err := ctx.KV().Delete("b"); err != nil {
			return nil, err
		}
		keys, more, err := ctx.KV().List("", "", 2)
		return []any{keys, more}, err
	case "http":
		r, err := ctx.HTTP(tool.Request{Method: "POST", URL: "https://a.test", Header: tool.Header{{"x", "1"}}, Body: []byte("ping")})
		return []any{r.Status, r.Header.Get("X"), string(r.Body)}, err
	case "stream":
		r, err := ctx.HTTP(tool.Request{URL: "https://a.test", Stream: true})
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r.Stream)
		return string(data), errors.Join(err, r.Stream.Close())
	case "broken stream":
		r, err := ctx.HTTP(tool.Request{URL: "https://broken.test", Stream: true})
		if err != nil {
			return nil, err
		}
		_, err = io.ReadAll(r.Stream)
		return err.Error(), nil
	case "tool":
		a, err := ctx.CallTool("other", map[string]int{"n": 1})
		return a.Text, err
	case "now":
		return ctx.Now().Sub(time.Now()).Abs() < time.Minute, nil
	}
	return ctx.Call(), nil
}
