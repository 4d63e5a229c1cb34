package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/casemate/casemate/plugins/capability"
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
func verdict(ctx *callContext, in *engine.Instance, f *frame.Frame, status int32, err error) Result {
	switch {
	case err != nil:
		return dead(ctx, in, f, err)
	case f.Failure() != nil:
		fl := f.Failure()
		return Result{
			Class:  Failed,
			Fail:   &Failure{Code: fl.Code, RetryAfter: fl.RetryAfter, Text: fl.Text},
			Detail: fmt.Sprintf("failed: %s: %s", fl.Code, fl.Text),
			reason: "failed: " + fl.Code.String(),
		}
	case f.OutputCut() || f.OutputRefused() && (status != 0 || len(f.Output()) == 0):
		return ended(Output, fmt.Sprintf("output is over %d bytes", f.MaxOutput))
	case status != 0:
		res := ended(Failed, fmt.Sprintf("returned %d without a reason", status))
		res.Fail = &Failure{Code: abi.FailInternal, RetryAfter: -1}
		return res
	case len(f.Output()) == 0:
		return ended(InvalidOutput, "returned 0 without output")
	case !utf8.Valid(f.Output()) || !json.Valid(f.Output()):
		return ended(InvalidOutput, "output is not valid JSON")
	}
	return Result{Class: OK, Output: f.Output()}
}

// ended is the result of a call of which nothing is to be told but why, in
// the host's own words.
func ended(class Class, why string) Result {
	return Result{Class: class, Detail: why, reason: why}
}

// died is the result of a call that err ended: before is the host's own words
// on it, and err may hold the guest's.
func died(class Class, before string, err error) Result {
	return Result{
		Class:  class,
		Detail: before + frame.Text([]byte(err.Error()), maxDetail),
		reason: before + reason(err),
	}
}

// dead is the result of a call that did not return.
func dead(ctx *callContext, in *engine.Instance, f *frame.Frame, err error) Result {
	switch {
	case errors.Is(err, capability.ErrEnded):
		return ended(Canceled, "nobody waits for the call any more")
	case isHostError(err):
		return ended(HostError, hostDetail)
	case errors.Is(err, engine.ErrStopped):
		return stopped(ctx, err)
	case errors.Is(err, errTenantFuel):
		return died(Throttled, "", err)
	case errors.Is(err, engine.ErrFuel):
		return died(Fuel, fmt.Sprintf("used up its %d fuel: ", f.Fuel), err)
	case errors.Is(err, engine.ErrDepth):
		return died(Depth, "", err)
	case in.GrowRefused():
		return died(Memory, "died after it was refused more memory: ", err)
	case f.OutputRefused():
		return died(Output, fmt.Sprintf("died after its output went over %d bytes: ", f.MaxOutput), err)
	}
	return died(Trap, "", err)
}

// stopped is the result of a call that err ended: its context's error, or that
// of its deadline.
func stopped(ctx *callContext, err error) Result {
	switch {
	case ctx.m.cut.Load():
		return ended(Unavailable, "plugin is closing")
	case errors.Is(err, context.DeadlineExceeded):
		return ended(Deadline, "the wall clock of the call ran out")
	}
	return ended(Canceled, "the call was canceled")
}

// reason says what ended a guest without a word of the guest's: neither the
// names of its functions nor what it gave to an abort.
func reason(err error) string {
	var part *startError
	before := ""
	if errors.As(err, &part) {
		before = part.export + ": "
	}
	var exit frame.Exit
	var trap *engine.Trap
	switch {
	case errors.As(err, &exit):
		return before + exit.Error()
	case errors.As(err, &trap) && trap.Fault() != "":
		return before + "trapped: " + trap.Fault()
	case trap != nil:
		return before + "trapped"
	case part != nil:
		return before + part.err.Error()
	}
	return before + "trapped"
}

// startError is why an instance did not start, and in which of its parts.
type startError struct {
	export string
	err    error
}

func (e *startError) Error() string { return e.export + ": " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

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
