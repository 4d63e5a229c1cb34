package queue

import "errors"

// The causes with which the context of a running request is canceled; find
// them with context.Cause.
var (
	ErrCanceled   = errors.New("canceled by its user")
	ErrClientGone = errors.New("its client went away")
	ErrShutdown   = errors.New("the host shuts down")
	ErrFenced     = errors.New("the host could not prolong its lease")
	ErrDeadline   = errors.New("its deadline passed")
)

// HandBack reports whether cause ends this host's run but not the request: its
// chain is kept and another worker goes on.
func HandBack(cause error) bool {
	return errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrFenced)
}

// CanceledBy is the outcome of a run that ended since its request was canceled,
// or its client went away.
func CanceledBy(cause error) Outcome {
	o := Outcome{To: Canceled, By: ByCancel, Class: ClassCanceled}
	if errors.Is(cause, ErrClientGone) {
		o.Code = CodeClientGone
	}
	return o
}
