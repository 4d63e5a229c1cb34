package translate

import (
	"encoding/json"

	"github.com/casemate/casemate/host/response"
)

// item is an input or output item of Responses as it is read; which fields are
// there follows from Type.
type item struct {
	Type        string          `json:"-"`
	ID          string          `json:"-"`
	CallID      string          `json:"-"`
	Role        string          `json:"-"`
	RawRole     json.RawMessage `json:"role"`
	Phase       json.RawMessage `json:"phase"`
	Content     json.RawMessage `json:"content"`
	Name        json.RawMessage `json:"name"`
	Namespace   json.RawMessage `json:"namespace"`
	Arguments   json.RawMessage `json:"arguments"`
	Input       json.RawMessage `json:"input"`
	Output      json.RawMessage `json:"output"`
	Error       json.RawMessage `json:"error"`
	ServerLabel json.RawMessage `json:"server_label"`
	ApprovalID  json.RawMessage `json:"approval_request_id"`
	Summary     json.RawMessage `json:"summary"`
	Encrypted   json.RawMessage `json:"encrypted_content"`
}

// readItem reads an item; false: it is none.
func readItem(it response.Item) (item, bool) {
	var m item
	if json.Unmarshal(it.Raw, &m) != nil {
		return item{}, false
	}
	m.Type, m.ID, m.CallID, m.Role = it.Type, it.ID, it.CallID, text(m.RawRole)
	return m, true
}

// customInput is the input of a custom tool as the arguments of a function: a
// chat upstream is offered it as one.
type customInput struct {
	Input string `json:"input"`
}

// result is what the model is told of an mcp_call; false: it has not ended.
func (m item) result() (string, bool) {
	switch {
	case !isNull(m.Error):
		return receiptError(m.Error), true
	case !isNull(m.Output):
		return text(m.Output), true
	}
	return "", false
}

// receiptError is the text in the error of an mcp_call: an object, or a string.
func receiptError(raw json.RawMessage) string {
	var e struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Message == "" {
		e.Code, e.Message = "", text(raw)
	}
	if e.Code == "" {
		e.Code = "error"
	}
	return string(response.ErrorOutput(e.Code, e.Message))
}
