package abi

// ReplyHead is in the reply head of every op. Its Status is the op's own, with
// the meaning of HTTP's numbers; that of an HTTP server is
// HTTPReply.HTTPStatus.
type ReplyHead struct {
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"` // closed code when Status is 400 or more, but for a kv.get/1 without an entry
}

// The statuses of ReplyHead.
const (
	StatusOK           = 200 // there is an answer
	StatusStored       = 204 // kv.put, kv.delete: buffered, committed with the step
	StatusBadRequest   = 400 // the head is not what the op wants; nothing was done
	StatusDenied       = 403 // http.fetch: the operator does not allow it
	StatusNoEntry      = 404 // kv.get: no such key; tool.call: no such tool
	StatusNotMatched   = 412 // kv.put, kv.delete: if_match or if_none_match does not hold
	StatusTooLarge     = 413 // kv.put: a value longer than MaxKVValue; http.fetch: a request longer than allowed
	StatusToolFailed   = 422 // tool.call: the tool failed
	StatusBadGateway   = 502 // http.fetch: no usable response
	StatusTimeout      = 504 // http.fetch: no response in time
	StatusInsufficient = 507 // kv.put, kv.delete: too many writes, or over the quota
)

// Words of ReplyHead.Error that more than one op uses.
const (
	ErrorRequest = "invalid_request" // the head is not the JSON that the op wants
)

// TimeReply is the reply head of OpTimeNow, which has no request head.
type TimeReply struct {
	ReplyHead
	NowMS int64 `json:"now_ms"` // milliseconds since 1970, UTC
}

// RandHead is the request head of OpRand. The body of the reply is N random
// bytes.
type RandHead struct {
	N int `json:"n"` // 1 to MaxRand
}

// MaxRand is the most bytes that one OpRand gives.
const MaxRand = 64 << 10

// ToolCallHead is the request head of OpToolCall. The body is the arguments, a
// JSON object; an empty one is {}.
type ToolCallHead struct {
	Tool string `json:"tool"`
}

// ToolReply is the reply head of OpToolCall. The body is the text that a model
// would be given, also when Status is StatusToolFailed: then Error is the name
// of the tool's fail code, or the class where it did not fail by itself.
type ToolReply struct {
	ReplyHead
	IsError bool `json:"is_error,omitempty"` // the tool answered, with an output that tells of a failure
}

// ErrorNoTool is ReplyHead.Error of an OpToolCall of a tool that the caller
// cannot see.
const ErrorNoTool = "no_such_tool"
