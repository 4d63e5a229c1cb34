package guest

import (
	"context"
	"errors"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins/capability"
)

// steps is a loop.Nested that answers as it is told.
type steps func(n int, tool string, arguments []byte) (loop.NestedReply, error)

func (s steps) Call(_ context.Context, n int, tool string, arguments []byte) (loop.NestedReply, error) {
	return s(n, tool, arguments)
}

func TestNested(t *testing.T) {
	ended := errors.New("lease lost")
	failed := func(code string) loop.NestedReply {
		return loop.NestedReply{Output: string(response.ErrorOutput(code, "words")), IsError: true}
	}
	for _, tt := range []struct {
		name  string
		reply loop.NestedReply
		err   error
		want  capability.ToolReply // without Output
		is    error
	}{
		{"an answer", loop.NestedReply{Output: "42"}, nil, capability.ToolReply{}, nil},
		{"an answer that looks like an error", loop.NestedReply{Output: failed("unknown_tool").Output}, nil, capability.ToolReply{}, nil},
		{"its own failure", failed("invalid_args"), nil, capability.ToolReply{Code: "invalid_args"}, nil},
		{"a class", failed("guest_trap"), nil, capability.ToolReply{Code: "guest_trap"}, nil},
		{"a word of the host", failed("timeout"), nil, capability.ToolReply{Code: "timeout"}, nil},
		{"a word of the guest", failed("made_up"), nil, capability.ToolReply{IsError: true}, nil},
		{"no class of a failure", failed("ok"), nil, capability.ToolReply{IsError: true}, nil},
		{"text", loop.NestedReply{Output: "sorry", IsError: true}, nil, capability.ToolReply{IsError: true}, nil},
		{"no such tool", failed("unknown_tool"), nil, capability.ToolReply{}, capability.ErrNoTool},
		{"not for tools", failed("tool_not_allowed"), nil, capability.ToolReply{}, capability.ErrRefused},
		{"a cycle", loop.NestedReply{}, loop.ErrNestedDenied, capability.ToolReply{}, capability.ErrRefused},
		{"no steps left", loop.NestedReply{}, loop.ErrNestedBudget, capability.ToolReply{}, capability.ErrExhausted},
		{"the run has ended", loop.NestedReply{}, ended, capability.ToolReply{}, ended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := nested{steps(func(n int, tool string, arguments []byte) (loop.NestedReply, error) {
				if n != 3 || tool != "x" || string(arguments) != "{}" {
					t.Errorf("called %d %s %s, want 3 x {}", n, tool, arguments)
				}
				return tt.reply, tt.err
			})}
			got, err := port.Call(t.Context(), 3, "x", []byte("{}"))
			if !errors.Is(err, tt.is) || tt.is == nil && err != nil {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			if err != nil {
				return
			}
			tt.want.Output = []byte(tt.reply.Output)
			if string(got.Output) != string(tt.want.Output) || got.Code != tt.want.Code || got.IsError != tt.want.IsError {
				t.Errorf("got %q %+v, want %+v", got.Output, got, tt.want)
			}
		})
	}
}

func TestNoNestedCallsOutsideOfALoop(t *testing.T) {
	if _, err := (nested{}).Call(t.Context(), 0, "x", nil); !errors.Is(err, capability.ErrRefused) {
		t.Errorf("error %v, want ErrRefused", err)
	}
}
