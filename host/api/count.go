package api

import (
	"encoding/json"
	"net/http"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/tokens"
)

// countInput serves POST /v1/responses/input_tokens: how many tokens a request
// for a response would send to its model, with all that it refers to.
func (a *API) countInput(x *exchange) error {
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	if body, err = x.countable(body); err != nil {
		return err
	}
	req, err := response.ParseRequest(body)
	if err != nil {
		return err
	}
	if err := x.mayUse(req.Model); err != nil {
		return err
	}
	t := &turn{a: a, tenant: x.tenant, body: body, req: req, brief: response.Brief{Request: req}}
	if err := t.context(x.r.Context()); err != nil {
		return err
	}
	if _, err := t.offer(); err != nil {
		return err
	}
	return x.writeJSON(http.StatusOK, struct {
		Object string `json:"object"`
		Tokens int    `json:"input_tokens"`
	}{"response.input_tokens", t.count()})
}

// countable completes a body that is to be counted: no field is required of it,
// and how a response is made and kept means nothing. Every model is counted
// alike, so one that is not named is any.
func (x *exchange) countable(body []byte) ([]byte, error) {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return nil, &response.BadRequest{Code: "invalid_type", Message: "The body must be an object."}
	}
	for _, k := range []string{"stream", "stream_options", "background", "store"} {
		delete(m, k)
	}
	if isNull(m["input"]) {
		m["input"] = json.RawMessage("[]")
	}
	if isNull(m["model"]) {
		for _, name := range sortedModels(x.a.Models) {
			if b, err := json.Marshal(name); err == nil && x.tenant.MayUse(name) {
				m["model"] = b
				break
			}
		}
	}
	return json.Marshal(m)
}

// count returns how many tokens the turn sends to its model first.
func (t *turn) count() int {
	total := t.overhead()
	for _, it := range t.brief.Items() {
		total += t.a.tokens.Item(it.Raw)
	}
	return total
}

// overhead returns how many of them are not of its items: those of its
// instructions, of the tools that it offers and of the schema of its answer.
func (t *turn) overhead() int {
	c := &t.a.tokens
	total := tokens.PerRequest
	if s := t.req.Instructions; s != nil && *s != "" {
		total += tokens.PerMessage + c.Text(*s)
	}
	for _, f := range t.req.Functions {
		total += c.Tool(f.Raw)
	}
	for _, tool := range t.tools {
		total += tokens.PerTool + c.Text(tool.Name) + c.Text(tool.Description) + c.Schema(tool.Parameters)
	}
	var text struct {
		Format struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"format"`
	}
	if json.Unmarshal(t.req.Text, &text) == nil {
		total += c.Schema(text.Format.Schema)
	}
	return total
}
