package response

import (
	"encoding/json"
	"strings"
)

// The types of output items.
const (
	itemMessage    = "message"
	itemReasoning  = "reasoning"
	itemFunction   = "function_call"
	itemCustomTool = "custom_tool_call"
	itemMCPCall    = "mcp_call"
	itemMCPList    = "mcp_list_tools"
	itemApproval   = "mcp_approval_request"
)

// outItem is one output item, from its first event on.
type outItem struct {
	kind   string
	id     string
	status string // "" of kinds that have none
	done   bool   // output_item.done was sent

	summary   []*outPart // of reasoning
	parts     []*outPart // of a message or reasoning
	encrypted string     // of reasoning

	callID, name, label string
	approval            string          // of an mcp_call: the id of the request that was approved
	args                strings.Builder // of a call; of a custom tool's its input
	begun               bool            // in_progress was sent, of an mcp_call or mcp_list_tools
	argsDone            bool
	ended, succeeded    bool // completed or failed was sent
	output              *string
	err                 json.RawMessage // nil: null
	tools               json.RawMessage // of an mcp_list_tools; nil: none
}

// outPart is a part of an item's content or summary.
type outPart struct {
	kind           string // of partRules
	text           strings.Builder
	annotations    []json.RawMessage
	logprobs       []json.RawMessage
	textDone, done bool
}

type textContent struct {
	Type        string            `json:"type"`
	Text        string            `json:"text"`
	Annotations []json.RawMessage `json:"annotations"`
	Logprobs    []json.RawMessage `json:"logprobs"`
}

type refusalContent struct {
	Type    string `json:"type"`
	Refusal string `json:"refusal"`
}

type reasoningContent struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

func (p *outPart) content() any {
	switch p.kind {
	case partRefusal:
		return refusalContent{p.kind, p.text.String()}
	case partReasoning, partSummary:
		return reasoningContent{p.kind, p.text.String()}
	}
	return textContent{p.kind, p.text.String(), orEmpty(p.annotations), orEmpty(p.logprobs)}
}

// orEmpty is the list as it is sent: never null.
func orEmpty(list []json.RawMessage) []json.RawMessage {
	if list == nil {
		return []json.RawMessage{}
	}
	return list
}

// toolExecutionError is the error of an mcp_call.
type toolExecutionError struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// encode returns the item as it is now.
func (it *outItem) encode() json.RawMessage {
	switch it.kind {
	case itemMessage:
		return marshal(struct {
			ID      string `json:"id"`
			Type    string `json:"type"`
			Status  string `json:"status"`
			Role    string `json:"role"`
			Content []any  `json:"content"`
		}{it.id, it.kind, it.status, "assistant", contents(it.parts)})
	case itemReasoning:
		return marshal(struct {
			ID        string `json:"id"`
			Type      string `json:"type"`
			Summary   []any  `json:"summary"`
			Content   []any  `json:"content"`
			Encrypted string `json:"encrypted_content,omitempty"`
			Status    string `json:"status"`
		}{it.id, it.kind, contents(it.summary), contents(it.parts), it.encrypted, it.status})
	case itemMCPList:
		return marshal(struct {
			ID    string          `json:"id"`
			Type  string          `json:"type"`
			Label string          `json:"server_label"`
			Tools json.RawMessage `json:"tools"`
			Error json.RawMessage `json:"error"`
		}{it.id, it.kind, it.label, orRaw(it.tools, "[]"), orRaw(it.err, "null")})
	}
	return it.encodeCall()
}

// encodeCall returns an item that is a call of some kind.
func (it *outItem) encodeCall() json.RawMessage {
	switch it.kind {
	case itemFunction:
		return marshal(struct {
			ID        string `json:"id"`
			Type      string `json:"type"`
			CallID    string `json:"call_id"`
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
			Status    string `json:"status"`
		}{it.id, it.kind, it.callID, it.name, it.args.String(), it.status})
	case itemCustomTool:
		return marshal(struct {
			ID     string `json:"id"`
			Type   string `json:"type"`
			CallID string `json:"call_id"`
			Name   string `json:"name"`
			Input  string `json:"input"`
			Status string `json:"status"`
		}{it.id, it.kind, it.callID, it.name, it.args.String(), it.status})
	case itemApproval:
		return marshal(struct {
			ID        string `json:"id"`
			Type      string `json:"type"`
			Label     string `json:"server_label"`
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		}{it.id, it.kind, it.label, it.name, it.args.String()})
	}
	return marshal(struct {
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Label     string          `json:"server_label"`
		Name      string          `json:"name"`
		Arguments string          `json:"arguments"`
		Output    *string         `json:"output"`
		Error     json.RawMessage `json:"error"`
		Status    string          `json:"status"`
		Approval  *string         `json:"approval_request_id"`
	}{it.id, it.kind, it.label, it.name, it.args.String(), it.output, orRaw(it.err, "null"), it.status, orNull(it.approval)})
}

func contents(parts []*outPart) []any {
	list := make([]any, 0, len(parts))
	for _, p := range parts {
		list = append(list, p.content())
	}
	return list
}
