package response

import (
	"encoding/json"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// The statuses of a response and of its items, as the API spells them.
const (
	statusQueued     = "queued"
	statusInProgress = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
	statusFailed     = "failed"
	statusCancelled  = "cancelled"
)

// object is the Response object. Every key but the last three is always sent,
// since some client wants each of them.
type object struct {
	ID                 string             `json:"id"`
	Object             string             `json:"object"`
	CreatedAt          int64              `json:"created_at"`
	CompletedAt        *int64             `json:"completed_at"`
	Status             string             `json:"status"`
	IncompleteDetails  *incompleteDetails `json:"incomplete_details"`
	Model              string             `json:"model"`
	PreviousResponseID *string            `json:"previous_response_id"`
	Instructions       *string            `json:"instructions"`
	Error              *objectError       `json:"error"`
	Tools              json.RawMessage    `json:"tools"`
	ToolChoice         json.RawMessage    `json:"tool_choice"`
	Truncation         string             `json:"truncation"`
	ParallelToolCalls  bool               `json:"parallel_tool_calls"`
	Text               json.RawMessage    `json:"text"`
	TopP               float64            `json:"top_p"`
	PresencePenalty    float64            `json:"presence_penalty"`
	FrequencyPenalty   float64            `json:"frequency_penalty"`
	TopLogprobs        int64              `json:"top_logprobs"`
	Temperature        float64            `json:"temperature"`
	Reasoning          json.RawMessage    `json:"reasoning"`
	MaxOutputTokens    *int64             `json:"max_output_tokens"`
	MaxToolCalls       *int64             `json:"max_tool_calls"`
	Store              bool               `json:"store"`
	Background         bool               `json:"background"`
	ServiceTier        string             `json:"service_tier"`
	Metadata           map[string]string  `json:"metadata"`
	SafetyIdentifier   *string            `json:"safety_identifier"`
	PromptCacheKey     *string            `json:"prompt_cache_key"`
	User               *string            `json:"user"`
	Output             []json.RawMessage  `json:"output"`
	Usage              *objectUsage       `json:"usage"`
	// Where they were sent.
	Conversation         *conversation   `json:"conversation,omitempty"`
	Prompt               json.RawMessage `json:"prompt,omitempty"`
	PromptCacheRetention string          `json:"prompt_cache_retention,omitempty"`
}

type conversation struct {
	ID string `json:"id"`
}

type incompleteDetails struct {
	Reason string `json:"reason"`
}

type objectError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type objectUsage struct {
	InputTokens        int64 `json:"input_tokens"`
	InputTokensDetails struct {
		CachedTokens     int64 `json:"cached_tokens"`
		CacheWriteTokens int64 `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens        int64 `json:"output_tokens"`
	OutputTokensDetails struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens int64 `json:"total_tokens"`
}

func newObjectUsage(u Usage) *objectUsage {
	o := &objectUsage{InputTokens: u.Input, OutputTokens: u.Output, TotalTokens: u.Input + u.Output}
	o.InputTokensDetails.CachedTokens, o.InputTokensDetails.CacheWriteTokens = u.Cached, u.CacheWrite
	o.OutputTokensDetails.ReasoningTokens = u.Reasoning
	return o
}

// responsePrefix begins the public id of a response.
const responsePrefix = "resp_"

// newObject echoes the request.
func newObject(id queue.ID, created time.Time, r *Request) object {
	o := object{
		ID: responsePrefix + id.String(), Object: "response", CreatedAt: created.Unix(), Status: statusInProgress,
		Model: r.Model, PreviousResponseID: orNull(r.PreviousResponseID), Instructions: r.Instructions,
		Tools: orRaw(r.ToolsRaw, "[]"), ToolChoice: orRaw(r.ToolChoice, `"auto"`),
		Truncation: "disabled", ParallelToolCalls: value(r.ParallelToolCalls, true),
		Text: echoText(r.Text),
		TopP: value(r.TopP, 1), PresencePenalty: value(r.PresencePenalty, 0), FrequencyPenalty: value(r.FrequencyPenalty, 0),
		TopLogprobs: value(r.TopLogprobs, 0), Temperature: value(r.Temperature, 1),
		Reasoning:       withKeys(r.Reasoning, map[string]string{"effort": "null", "summary": "null"}),
		MaxOutputTokens: r.MaxOutputTokens, MaxToolCalls: r.MaxToolCalls,
		Store: r.Store, Background: r.Background, ServiceTier: "default", Metadata: r.Metadata,
		SafetyIdentifier: orNull(r.SafetyIdentifier), PromptCacheKey: orNull(r.PromptCacheKey), User: orNull(r.User),
		Prompt: r.Prompt, PromptCacheRetention: r.PromptCacheRetention,
	}
	if r.Conversation != "" {
		o.Conversation = &conversation{r.Conversation}
	}
	if r.Truncation != "" {
		o.Truncation = r.Truncation
	}
	if r.ServiceTier == "flex" && r.Store || r.ServiceTier == "priority" {
		o.ServiceTier = r.ServiceTier // the others are served as the default is, and so is what cannot be queued
	}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	return o
}

// echoText returns text as it is used: the format with what was left out of it.
func echoText(raw json.RawMessage) json.RawMessage {
	var t struct {
		Format json.RawMessage `json:"format"`
	}
	whole := withKeys(raw, map[string]string{"format": `{"type":"text"}`})
	var kind struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &t) != nil || json.Unmarshal(t.Format, &kind) != nil || kind.Type != "json_schema" {
		return whole
	}
	m := map[string]json.RawMessage{}
	if json.Unmarshal(whole, &m) != nil {
		return whole
	}
	m["format"] = withKeys(t.Format, map[string]string{"description": "null", "strict": "false"})
	return marshal(m)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orRaw(raw json.RawMessage, unset string) json.RawMessage {
	if isNull(raw) {
		return json.RawMessage(unset)
	}
	return raw
}

func value[T any](p *T, unset T) T {
	if p == nil {
		return unset
	}
	return *p
}

// withKeys returns the object raw with the keys that it lacks.
func withKeys(raw json.RawMessage, keys map[string]string) json.RawMessage {
	m := map[string]json.RawMessage{}
	if !isNull(raw) && json.Unmarshal(raw, &m) != nil {
		return json.RawMessage("null")
	}
	for k, v := range keys {
		if isNull(m[k]) {
			m[k] = json.RawMessage(v)
		}
	}
	return marshal(m)
}
