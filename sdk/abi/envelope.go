package abi

import "encoding/json"

// Effects says what a second try of a tool call may do.
type Effects string

// The effects. A tool that declares none has EffectsOnce.
const (
	EffectsPure       Effects = "pure"       // no state anywhere; any number of tries
	EffectsIdempotent Effects = "idempotent" // a repeat under the same idempotency key changes nothing more
	EffectsOnce       Effects = "once"       // never tried again once it began
)

// Descriptor is what a guest's describe returns and what Section holds. It is
// the manifest of a plugin; there is no other file.
type Descriptor struct {
	V            int               `json:"v"`
	Name         string            `json:"name"`    // ^[a-z][a-z0-9-]{0,62}$
	Version      string            `json:"version"` // semver, "0.1.0"
	Description  string            `json:"description,omitempty"`
	Kinds        []string          `json:"kinds"` // "tool", "route", "retry"
	Tools        []ToolDescriptor  `json:"tools,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`  // op strings wanted, "kv.get/1"
	ConfigSchema json.RawMessage   `json:"config_schema,omitempty"` // JSON Schema
	WarmUp       []json.RawMessage `json:"warm_up,omitempty"`       // each a WarmUp
}

// WarmUp is one input that the host runs, without powers, before it takes the
// image that every call starts from. What the guest then holds in memory is
// seen by every call, so it is made up, never a tenant's. Exactly one of Tool,
// Route and Retry is set.
type WarmUp struct {
	Tool      string          `json:"tool,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"` // of Tool
	Route     json.RawMessage `json:"route,omitempty"`     // a RouteQuestion
	Retry     json.RawMessage `json:"retry,omitempty"`     // a RetryQuestion
}

// The kinds of a plugin.
const (
	KindTool  = "tool"
	KindRoute = "route"
	KindRetry = "retry"
)

// ToolDescriptor describes one tool to the model and to the host.
type ToolDescriptor struct {
	Name        string          `json:"name"` // ^[a-zA-Z0-9_-]{1,64}$
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"` // JSON Schema of an object
	Effects     Effects         `json:"effects,omitempty"`
	TimeoutMS   int64           `json:"timeout_ms,omitempty"` // 0: the host's default
}

// ToolCall is the input of ExportToolCall.
type ToolCall struct {
	V         int             `json:"v"`
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Config    json.RawMessage `json:"config,omitempty"`
	Call      CallInfo        `json:"call"`
	WarmUp    bool            `json:"warm_up,omitempty"` // a Descriptor.WarmUp and no call of a model
}

// CallInfo tells a tool which step it works for.
type CallInfo struct {
	ResponseID     string `json:"response_id"`
	Step           string `json:"step"` // "<scope>/<ordinal>"
	Attempt        int    `json:"attempt"`
	IdempotencyKey string `json:"idempotency_key"` // the same in every try and attempt of the step
	Tenant         string `json:"tenant"`
	Model          string `json:"model"`
	DeadlineInMS   int64  `json:"deadline_in_ms"`
	Traceparent    string `json:"traceparent,omitempty"`
}

// ToolResult is the output of ExportToolCall. Output is a JSON string, given
// to the model as text, or any other JSON value, given as its text form.
type ToolResult struct {
	V       int               `json:"v"`
	Output  json.RawMessage   `json:"output"`
	Content []json.RawMessage `json:"content,omitempty"`
	IsError bool              `json:"is_error,omitempty"`
}

// RequestInfo is what policies learn of a request. Never its text.
type RequestInfo struct {
	ID              string            `json:"id"`
	Tenant          string            `json:"tenant"`
	Path            string            `json:"path"`
	Model           string            `json:"model"`
	Tier            string            `json:"tier"`
	Stream          bool              `json:"stream"`
	Queued          bool              `json:"queued,omitempty"` // it may wait in the queue for its next try
	Failures        int               `json:"failures"`
	AgeMS           int64             `json:"age_ms"`
	DeadlineInMS    int64             `json:"deadline_in_ms"` // 0: none
	InputBytes      int64             `json:"input_bytes"`
	MaxOutputTokens int64             `json:"max_output_tokens"` // 0: none
	Modalities      []string          `json:"modalities,omitempty"`
	ToolCount       int               `json:"tool_count"`
	Metadata        map[string]string `json:"metadata,omitempty"`
}

// Candidate is one target that may serve a request.
type Candidate struct {
	Target     string  `json:"target"` // "upstream/model", unique in a question
	Upstream   string  `json:"upstream"`
	Model      string  `json:"model"`
	Weight     float64 `json:"weight"`
	Healthy    bool    `json:"healthy"`
	InFlight   int     `json:"in_flight"`
	Limit      int     `json:"limit"` // 0: none
	LatencyMS  float64 `json:"latency_ms"`
	ErrorRate  float64 `json:"error_rate"`
	CooldownMS int64   `json:"cooldown_ms"`
}

// Tried is one target already tried for the same step.
type Tried struct {
	Target string `json:"target"`
	Class  string `json:"class"`
	Status int    `json:"status"`
}

// MaxCandidates is the most candidates of one RouteQuestion.
const MaxCandidates = 64

// RouteQuestion is the input of ExportRoute.
type RouteQuestion struct {
	V          int         `json:"v"`
	NowMS      int64       `json:"now_ms"`
	Seed       int64       `json:"seed"` // 0 … 2^53-1
	Request    RequestInfo `json:"request"`
	Candidates []Candidate `json:"candidates"`
	Tried      []Tried     `json:"tried,omitempty"`
}

// RouteAnswer is the output of ExportRoute: targets in the order to try them,
// or a rejection.
type RouteAnswer struct {
	V         int      `json:"v"`
	Targets   []string `json:"targets,omitempty"`
	TimeoutMS int64    `json:"timeout_ms,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Reject    *Reject  `json:"reject,omitempty"`
}

// Reject ends a request with an HTTP error.
type Reject struct {
	Status       int    `json:"status"`
	Code         string `json:"code"`
	Message      string `json:"message"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

// RetryQuestion is the input of ExportRetry.
type RetryQuestion struct {
	V            int          `json:"v"`
	NowMS        int64        `json:"now_ms"`
	Seed         int64        `json:"seed"` // 0 … 2^53-1
	Request      RequestInfo  `json:"request"`
	Step         StepInfo     `json:"step"`
	Failures     int          `json:"failures"`
	MaxFailures  int          `json:"max_failures"`
	DeadlineInMS int64        `json:"deadline_in_ms"` // 0: none
	Outcome      FailedTry    `json:"outcome"`
	History      []HistoryTry `json:"history,omitempty"`
}

// StepInfo names the step that failed. Kind is "model_call", "tool_call" or,
// on the default path, "request".
type StepInfo struct {
	Kind    string  `json:"kind"`
	Tool    string  `json:"tool,omitempty"`
	Effects Effects `json:"effects,omitempty"`
}

// FailedTry is how the last try ended.
type FailedTry struct {
	Class             string `json:"class"`
	Code              string `json:"code,omitempty"`
	Status            int    `json:"status,omitempty"`
	RetryAfterMS      int64  `json:"retry_after_ms"` // -1: not said
	VisibleOutputSent bool   `json:"visible_output_sent"`
}

// HistoryTry is one earlier failed try of the same step.
type HistoryTry struct {
	Class   string `json:"class"`
	Status  int    `json:"status,omitempty"`
	DelayMS int64  `json:"delay_ms"`
}

// The actions of RetryAnswer.
const (
	ActionRetry = "retry"
	ActionFail  = "fail"
)

// RetryAnswer is the output of ExportRetry. Count says whether the retry
// spends one of the request's failures; absent means it does.
type RetryAnswer struct {
	V       int    `json:"v"`
	Action  string `json:"action"`
	DelayMS int64  `json:"delay_ms"`
	Count   *bool  `json:"count,omitempty"`
	Reason  string `json:"reason,omitempty"`
}
