package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// pluginKV is one plugin's state for one tenant.
type pluginKV struct {
	kv             KV
	tenant, plugin string
}

// Get implements capability.KV.
func (k pluginKV) Get(ctx context.Context, key string) ([]byte, bool, error) {
	return k.kv.KVGet(ctx, k.tenant, k.plugin, key)
}

// List implements capability.KV.
func (k pluginKV) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return k.kv.KVList(ctx, k.tenant, k.plugin, prefix, after, limit)
}

// Used implements capability.KV.
func (k pluginKV) Used(ctx context.Context) (keys int, bytes int64, err error) {
	return k.kv.KVUsed(ctx, k.tenant, k.plugin)
}

// effect returns what records that effects of a call began; it can only fail
// because the run has ended or may not act any more.
func effect(record func(context.Context) error) func(context.Context) error {
	if record == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if err := record(ctx); err != nil {
			return fmt.Errorf("%w: %w", capability.ErrEnded, err)
		}
		return nil
	}
}

// nested calls other tools for a call, as steps of the loop.
type nested struct{ loop loop.Nested }

// Call implements capability.Tools.
func (c nested) Call(ctx context.Context, n int, tool string, arguments []byte) (capability.ToolReply, error) {
	if c.loop == nil {
		return capability.ToolReply{}, capability.ErrRefused
	}
	r, err := c.loop.Call(ctx, n, tool, arguments)
	switch {
	case errors.Is(err, loop.ErrNestedDenied):
		return capability.ToolReply{}, capability.ErrRefused
	case errors.Is(err, loop.ErrNestedBudget):
		return capability.ToolReply{}, capability.ErrExhausted
	case err != nil:
		return capability.ToolReply{}, fmt.Errorf("%w: %w", capability.ErrEnded, err)
	case !r.IsError:
		return capability.ToolReply{Output: []byte(r.Output)}, nil
	}
	switch code := errorCode(r.Output); {
	case code == "unknown_tool":
		return capability.ToolReply{}, capability.ErrNoTool
	case code == "tool_not_allowed":
		return capability.ToolReply{}, capability.ErrRefused
	case known(code):
		return capability.ToolReply{Output: []byte(r.Output), Code: code}, nil
	}
	return capability.ToolReply{Output: []byte(r.Output), IsError: true}, nil
}

// errorCode returns the code in what response.ErrorOutput wrote, "" of other
// text.
func errorCode(output string) string {
	var e struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal([]byte(output), &e) != nil {
		return ""
	}
	return e.Error.Code
}

// known reports whether code is of a closed set: another guest's output may
// look like an error of the host.
func known(code string) bool {
	for c := abi.FailInvalidArgs; c <= abi.FailInternal; c++ {
		if c.String() == code {
			return true
		}
	}
	return code == "timeout" || code == "unavailable" || slices.Contains(queue.Classes(), queue.Class(code)) && code != string(queue.OK)
}
