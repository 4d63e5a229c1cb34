// Package abi names everything that crosses the boundary between the host and
// a guest module: imports, exports, numbered codes, envelopes and frames of
// native/1. ABI.md is the same contract for other languages. It does no I/O
// and depends on nothing but the standard library.
package abi

// Version is the value of "v" in every envelope.
const Version = 1

// Module is the name of the import module of native/1. Its imports are frozen:
// a new power is a new op string of ImportCall, never a new import.
const Module = "casemate_v1"

// Names of the imports of Module.
const (
	ImportInputLen    = "input_len"
	ImportInputRead   = "input_read"
	ImportOutputWrite = "output_write"
	ImportFail        = "fail"
	ImportLog         = "log"
	ImportEmit        = "emit"
	ImportCall        = "call"
	ImportReplyRead   = "reply_read"
	ImportStreamRead  = "stream_read"
	ImportStreamClose = "stream_close"
	ImportBudget      = "budget"
)

// Names of the exports of a native/1 module. All are () → i32 but
// ExportMemory, and ExportInitialize, which is () → ().
const (
	ExportMemory     = "memory"
	ExportMarker     = "casemate_abi_1"
	ExportInitialize = "_initialize"
	ExportOnRestore  = "on_restore"
	ExportDescribe   = "describe"
	ExportToolCall   = "tool_call"
	ExportRoute      = "route"
	ExportRetry      = "retry"
)

// Section is the name of the custom section that holds the packed descriptor
// as canonical JSON.
const Section = "casemate.plugin"

// Errno is a WASI preview1 error number; imports return it negated.
type Errno int32

// The errnos that a native/1 import may return, with their preview1 numbers.
const (
	E2BIG     Errno = 1
	EACCES    Errno = 2
	EAGAIN    Errno = 6
	EBADF     Errno = 8
	ECANCELED Errno = 11
	EINVAL    Errno = 28
	EIO       Errno = 29
	ENOENT    Errno = 44
	ENOSYS    Errno = 52 // unknown op
	EOVERFLOW Errno = 61
	EPERM     Errno = 63 // not granted
	EDQUOT    Errno = 19 // out of budget
)

// FailCode is the first argument of ImportFail.
type FailCode int32

// The fail codes. The first three and FailPermanent are told to the model;
// FailTransient goes to the retry policy; FailInternal goes to the retry
// policy and then to the model as a generic text.
const (
	FailInvalidArgs FailCode = 1
	FailNotFound    FailCode = 2
	FailDenied      FailCode = 3
	FailTransient   FailCode = 4
	FailPermanent   FailCode = 5
	FailInternal    FailCode = 6
)

// String returns the name that the codes have in JSON: "invalid_args",
// "not_found", "denied", "transient", "permanent", "internal".
func (c FailCode) String() string {
	switch c {
	case FailInvalidArgs:
		return "invalid_args"
	case FailNotFound:
		return "not_found"
	case FailDenied:
		return "denied"
	case FailTransient:
		return "transient"
	case FailPermanent:
		return "permanent"
	case FailInternal:
		return "internal"
	}
	return "unknown"
}

// Level is the first argument of ImportLog.
type Level int32

// The log levels.
const (
	LevelTrace Level = 0
	LevelDebug Level = 1
	LevelInfo  Level = 2
	LevelWarn  Level = 3
	LevelError Level = 4
)

// Budget selects what ImportBudget answers.
type Budget int32

// The budgets: milliseconds to the deadline, fuel left, output bytes left.
const (
	BudgetMillis Budget = 0
	BudgetFuel   Budget = 1
	BudgetOutput Budget = 2
)

// The ops of ImportCall that this host knows.
const (
	OpKVGet     = "kv.get/1"
	OpKVPut     = "kv.put/1"
	OpKVDelete  = "kv.delete/1"
	OpKVList    = "kv.list/1"
	OpHTTPFetch = "http.fetch/1"
	OpToolCall  = "tool.call/1"
	OpTimeNow   = "time.now/1"
	OpRand      = "rand/1"
)

// MaxFailText is the longest text, in bytes, that ImportFail keeps.
const MaxFailText = 4 << 10
