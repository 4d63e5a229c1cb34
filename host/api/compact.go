package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

const (
	// compactInstructions is what the model is told that makes a compaction.
	compactInstructions = "You condense conversations between a user and an assistant, so that the assistant can go on from your text alone. " +
		"Write down what it needs: what the user wants and has said about how, what was decided and why, what was done and with what result, " +
		"names, numbers, paths and code that matter word for word, what is open, and what comes next. " +
		"Leave out pleasantries and what was overtaken. Do not answer the user, do not go on with the work, and call no tool."
	// compactRequest is the message that ends the conversation for it.
	compactRequest = "Condense the conversation before this message now, by your instructions."
	// maxKeptTokens is how many tokens of the user's messages a compaction keeps
	// as they are, the latest first. The summary stands for the others too.
	maxKeptTokens = 20000
)

// compact serves POST /v1/responses/compact: one call of the model turns a
// conversation into few items that another response can go on from.
func (a *API) compact(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	body, err = compaction(body)
	if err != nil {
		return err
	}
	t, err := a.turn(x, body, nil)
	if err != nil {
		return err
	}
	run, err := a.submit(x.r.Context(), t)
	if err != nil {
		return err
	}
	x.attempt = 1
	o, err := run.Wait(x.r.Context())
	switch {
	case x.r.Context().Err() != nil:
		return a.abandon(x, t.n)
	case err != nil:
		return err
	case !o.To.Final():
		return fmt.Errorf("api: %s: %w", t.n.ID, queue.ErrLeaseLost)
	}
	x.state = o.To.String()
	if o.To != queue.Completed {
		return failed(o)
	}
	object, err := compacted(t, o.Body)
	if err != nil {
		return err
	}
	return x.writeJSON(http.StatusOK, object)
}

// compaction makes a request for a response of one for a compaction: unstored,
// without tools, and with a message at its end that asks for the summary.
func compaction(body []byte) ([]byte, error) {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return nil, &response.BadRequest{Code: "invalid_type", Message: "The body must be an object."}
	}
	made := map[string]any{"store": false, "tool_choice": "none"}
	for _, k := range []string{"model", "previous_response_id", "prompt_cache_key", "prompt_cache_retention", "service_tier", "safety_identifier", "user"} {
		if !isNull(m[k]) {
			made[k] = m[k]
		}
	}
	instructions := compactInstructions
	if raw := m["instructions"]; !isNull(raw) {
		var own string
		if json.Unmarshal(raw, &own) != nil {
			return nil, &response.BadRequest{Param: "instructions", Code: "invalid_type", Message: "instructions must be a string."}
		}
		if own != "" {
			instructions += "\n\nThe assistant works by these instructions, which will be given to it again:\n\n" + own
		}
	}
	made["instructions"] = instructions
	input, err := compactInput(m["input"], !isNull(m["previous_response_id"]))
	if err != nil {
		return nil, err
	}
	made["input"] = input
	b, err := json.Marshal(made)
	if err != nil {
		return nil, fmt.Errorf("api: compact: %w", err)
	}
	return b, nil
}

// compactInput returns the input of a compaction with the request for it.
func compactInput(raw json.RawMessage, chained bool) ([]json.RawMessage, error) {
	var items []json.RawMessage
	var text string
	switch {
	case isNull(raw) && chained:
	case isNull(raw):
		return nil, &response.BadRequest{Param: "input", Code: "missing_required_parameter", Message: "input or previous_response_id is required."}
	case json.Unmarshal(raw, &text) == nil:
		items = []json.RawMessage{userMessage(text)}
	case json.Unmarshal(raw, &items) != nil:
		return nil, &response.BadRequest{Param: "input", Code: "invalid_type", Message: "input must be a string or an array of items."}
	}
	if len(items) == 0 && !chained {
		return nil, &response.BadRequest{Param: "input", Code: "missing_required_parameter", Message: "input has no item that could be condensed."}
	}
	return append(items, userMessage(compactRequest)), nil
}

// userMessage is a message of the user.
func userMessage(text string) json.RawMessage {
	b, err := json.Marshal(map[string]string{"type": "message", "role": "user", "content": text})
	if err != nil {
		return nil // strings can be encoded
	}
	return b
}

// compactObject is a compaction as clients see it.
type compactObject struct {
	ID      string            `json:"id"`
	Object  string            `json:"object"`
	Created int64             `json:"created_at"`
	Output  []json.RawMessage `json:"output"`
	Usage   json.RawMessage   `json:"usage"`
}

// compacted makes the compaction of the response that the model's call ended
// as. What is no whole summary is not handed out: it would lose what it leaves
// out.
func compacted(t *turn, body []byte) (*compactObject, error) {
	var r struct {
		Status string `json:"status"`
		Output []struct {
			Type    string `json:"type"`
			Content []struct {
				Type string `json:"type"`
				Text string `json:"text"`
			} `json:"content"`
		} `json:"output"`
		Usage json.RawMessage `json:"usage"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("api: compact: %w", err)
	}
	summary := ""
	for _, it := range r.Output {
		for _, p := range it.Content {
			if it.Type == "message" && p.Type == "output_text" {
				summary += p.Text
			}
		}
	}
	if r.Status != "completed" || summary == "" {
		return nil, &Error{Status: http.StatusBadGateway, Code: "compaction_failed", Message: "The model wrote no whole summary."}
	}
	last, err := json.Marshal(map[string]string{
		"id": "cmp_" + t.n.ID.String(), "type": "compaction", "encrypted_content": response.Compaction(summary),
	})
	if err != nil {
		return nil, fmt.Errorf("api: compact: %w", err)
	}
	return &compactObject{
		ID: responsePrefix + t.n.ID.String(), Object: "response.compaction", Created: time.Now().Unix(),
		Output: append(t.userMessages(), last), Usage: r.Usage,
	}, nil
}

// userMessages returns the user's messages of a compaction's conversation that
// are kept as they are, in their order. The last message asks for the compaction
// and is none of them.
func (t *turn) userMessages() []json.RawMessage {
	items := t.brief.Items()
	items = items[:max(0, len(items)-1)]
	var keep []response.Item
	left := maxKeptTokens
	for _, it := range slices.Backward(items) {
		var m struct {
			Role string `json:"role"`
		}
		if it.Type != "message" || json.Unmarshal(it.Raw, &m) != nil || m.Role != "user" {
			continue
		}
		if left -= t.a.tokens.Item(it.Raw); left < 0 && len(keep) > 0 {
			break
		}
		keep = append(keep, it)
	}
	slices.Reverse(keep)
	kept := []json.RawMessage{}
	for _, it := range response.NameItems(keep, t.n.ID) {
		kept = append(kept, shown(it.Raw))
	}
	return kept
}
