package translate

import (
	"encoding/json"

	"github.com/casemate/casemate/host/response"
)

// readChatUsage reads the usage of a chat completion. What is missing or odd
// counts as 0: a new field must not lose the rest.
func readChatUsage(raw json.RawMessage) response.Usage {
	var u struct {
		Input      json.RawMessage `json:"prompt_tokens"`
		Output     json.RawMessage `json:"completion_tokens"`
		InDetails  json.RawMessage `json:"prompt_tokens_details"`
		OutDetails json.RawMessage `json:"completion_tokens_details"`
	}
	if json.Unmarshal(raw, &u) != nil {
		return response.Usage{}
	}
	return usageOf(u.Input, u.Output, u.InDetails, u.OutDetails)
}

// usageOf reads counts whose names are the same in both APIs.
func usageOf(input, output, inDetails, outDetails json.RawMessage) response.Usage {
	var in, out map[string]json.RawMessage
	if !isNull(inDetails) {
		_ = json.Unmarshal(inDetails, &in)
	}
	if !isNull(outDetails) {
		_ = json.Unmarshal(outDetails, &out)
	}
	return response.Usage{
		Input: count(input), Output: count(output),
		Cached: count(in["cached_tokens"]), CacheWrite: count(in["cache_write_tokens"]),
		Reasoning: count(out["reasoning_tokens"]),
	}
}

// readResponsesUsage reads the usage of a response, likewise.
func readResponsesUsage(raw json.RawMessage) response.Usage {
	var u struct {
		Input      json.RawMessage `json:"input_tokens"`
		Output     json.RawMessage `json:"output_tokens"`
		InDetails  json.RawMessage `json:"input_tokens_details"`
		OutDetails json.RawMessage `json:"output_tokens_details"`
	}
	if json.Unmarshal(raw, &u) != nil {
		return response.Usage{}
	}
	return usageOf(u.Input, u.Output, u.InDetails, u.OutDetails)
}
