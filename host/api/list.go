package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// maxPage is how many entries a page may have.
const maxPage = 100

// list is a page of a list as clients see it. Its ids are those of its first
// and last entry, empty where it has none.
type list struct {
	Object  string            `json:"object"`
	Data    []json.RawMessage `json:"data"`
	FirstID string            `json:"first_id"`
	LastID  string            `json:"last_id"`
	HasMore bool              `json:"has_more"`
}

// newList returns a page of entries with these ids.
func newList(data []json.RawMessage, ids []string, more bool) list {
	l := list{Object: "list", Data: data, HasMore: more}
	if l.Data == nil {
		l.Data = []json.RawMessage{}
	}
	if n := len(ids); n > 0 {
		l.FirstID, l.LastID = ids[0], ids[n-1]
	}
	return l
}

// parsePage reads limit, order and after of a list's query: 20 entries, newest
// first, where it does not say. A limit of 0 says nothing: there are clients
// that send it.
func parsePage(q url.Values) (store.Page, error) {
	var p store.Page
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil:
			return p, &response.BadRequest{Param: "limit", Code: "invalid_type", Message: "limit must be an integer."}
		case n < 0:
			return p, &response.BadRequest{Param: "limit", Code: "integer_below_min_value", Message: "limit must be at least 1."}
		case n > maxPage:
			return p, &response.BadRequest{Param: "limit", Code: "integer_above_max_value", Message: fmt.Sprintf("limit may be %d at most.", maxPage)}
		}
		p.Limit = n
	}
	switch q.Get("order") {
	case "", "desc":
	case "asc":
		p.Ascending = true
	default:
		return p, &response.BadRequest{Param: "order", Code: "invalid_value", Message: "order must be asc or desc."}
	}
	p.After = q.Get("after")
	return p, nil
}

// inputItems serves GET /v1/responses/{id}/input_items: what the response was
// created with itself, without the context that it goes on from.
func (a *API) inputItems(x *exchange) error {
	p, err := parsePage(x.r.URL.Query())
	if err != nil {
		return err
	}
	rec, err := x.find(store.Parts{Body: true})
	if err != nil {
		return err
	}
	brief, err := response.DecodeBrief(rec.Body)
	if err != nil {
		return fmt.Errorf("api: input of %s: %w", rec.ID, err)
	}
	items := response.NameItems(brief.Request.Input, rec.ID)
	if !p.Ascending {
		slices.Reverse(items)
	}
	if p.After != "" {
		i := slices.IndexFunc(items, func(it response.Item) bool { return it.ID == p.After })
		if i < 0 {
			return unknownAfter("item")
		}
		items = items[i+1:]
	}
	n := min(p.Size(), len(items))
	var data []json.RawMessage
	var ids []string
	for _, it := range items[:n] {
		data, ids = append(data, shown(it.Raw)), append(ids, it.ID)
	}
	return x.writeJSON(http.StatusOK, newList(data, ids, n < len(items)))
}

// shown returns an item in the form that lists have: what its client left out is
// there, and a text is a list of parts.
func shown(raw json.RawMessage) json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return raw
	}
	var kind, role string
	_ = json.Unmarshal(m["type"], &kind) // another shape is shown as it is
	_ = json.Unmarshal(m["role"], &role)
	switch kind {
	case "", "message":
		m["type"] = json.RawMessage(`"message"`)
		if c := bytes.TrimSpace(m["content"]); isNull(c) || c[0] == '"' {
			m["content"] = parts(role, c)
		}
	case "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output":
	default:
		return raw
	}
	if isNull(m["status"]) {
		m["status"] = json.RawMessage(`"completed"`)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return raw
	}
	return b
}

// parts makes the list of parts of a content that is a text, or nothing.
func parts(role string, content json.RawMessage) json.RawMessage {
	if isNull(content) {
		return json.RawMessage("[]")
	}
	head := `[{"type":"input_text","text":`
	tail := `}]`
	if role == "assistant" {
		head, tail = `[{"type":"output_text","text":`, `,"annotations":[],"logprobs":[]}]`
	}
	return slices.Concat(json.RawMessage(head), content, json.RawMessage(tail))
}
