package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/sdk/abi"
)

// maxDetail bounds Result.Detail: names of functions are the guest's.
const maxDetail = 4 << 10

// hostDetail is all that the owner of a plugin learns of a failure of the host.
const hostDetail = "the host could not do its part"

// verdict says how a call ended. The first that holds counts: the host's own
// failure, the end of the context, a death of the guest, what it said by fail,
// and only then its output.
func verdict(ctx context.Context, in *instance, f *frame.Frame, status int32, err error) Result {
	switch {
	case err != nil:
		return dead(ctx, in, f, err)
	case f.Failure() != nil:
		fl := f.Failure()
		return Result{
			Class:  Failed,
			Fail:   &Failure{Code: fl.Code, RetryAfter: fl.RetryAfter, Text: fl.Text},
			Detail: fmt.Sprintf("failed: %s: %s", fl.Code, fl.Text),
		}
	case f.OutputCut() || f.OutputRefused() && (status != 0 || len(f.Output()) == 0):
		return Result{Class: Output, Detail: fmt.Sprintf("output is over %d bytes", f.MaxOutput)}
	case status != 0:
		return Result{
			Class:  Failed,
			Fail:   &Failure{Code: abi.FailInternal, RetryAfter: -1},
			Detail: fmt.Sprintf("returned %d without a reason", status),
		}
	case len(f.Output()) == 0:
		return Result{Class: InvalidOutput, Detail: "returned 0 without output"}
	case !utf8.Valid(f.Output()) || !json.Valid(f.Output()):
		return Result{Class: InvalidOutput, Detail: "output is not valid JSON"}
	}
	return Result{Class: OK, Output: f.Output()}
}

// dead is the result of a call that did not return.
func dead(ctx context.Context, in *instance, f *frame.Frame, err error) Result {
	switch {
	case isHostError(err):
		return Result{Class: HostError, Detail: hostDetail}
	case errors.Is(err, engine.ErrStopped):
		return stopped(ctx)
	case errors.Is(err, engine.ErrDepth):
		return Result{Class: Depth, Detail: detail(err)}
	case in.GrowRefused():
		return Result{Class: Memory, Detail: "died after it was refused more memory: " + detail(err)}
	case f.OutputRefused():
		return Result{Class: Output, Detail: fmt.Sprintf("died after its output went over %d bytes: %s", f.MaxOutput, detail(err))}
	}
	return Result{Class: Trap, Detail: detail(err)}
}

// stopped is the result of a call whose context ended.
func stopped(ctx context.Context) Result {
	switch {
	case errors.Is(context.Cause(ctx), errClosing):
		return Result{Class: Unavailable, Detail: "plugin is closing"}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Result{Class: Deadline, Detail: "the wall clock of the call ran out"}
	case ctx.Err() != nil:
		return Result{Class: Canceled, Detail: "the call was canceled"}
	}
	return Result{Class: Unavailable, Detail: "instance is closed"}
}

func isHostError(err error) bool {
	var port *frame.HostFault
	var panicked *engine.HostPanic
	return errors.As(err, &port) || errors.As(err, &panicked)
}

// hostCause is the part of err that is the host's: the trace around it holds
// the guest's names.
func hostCause(err error) error {
	var port *frame.HostFault
	if errors.As(err, &port) {
		return port
	}
	var panicked *engine.HostPanic
	if errors.As(err, &panicked) {
		return panicked
	}
	return err
}

func detail(err error) string { return frame.Text([]byte(err.Error()), maxDetail) }
