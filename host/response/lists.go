package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Lists returns the labels whose tools are listed before the first model call:
// those of the request's mcp entries, in order, but for those whose list the
// context or input holds already.
func Lists(b Brief) []string {
	known := listed(b)
	var labels []string
	for _, ref := range b.Request.Servers {
		if _, ok := known[ref.Label]; !ok && !slices.Contains(labels, ref.Label) {
			labels = append(labels, ref.Label)
		}
	}
	return labels
}

// listed maps labels to the tools that the latest item of their server lists.
func listed(b Brief) map[string][]RemoteTool {
	known := map[string][]RemoteTool{}
	for _, it := range allItems(b) {
		if it.Type != itemMCPList {
			continue
		}
		var list struct {
			Label string          `json:"server_label"`
			Tools json.RawMessage `json:"tools"`
			Error json.RawMessage `json:"error"`
		}
		if json.Unmarshal(it.Raw, &list) != nil || !isNull(list.Error) {
			continue
		}
		if tools, err := readTools(list.Tools); err == nil {
			known[list.Label] = tools
		}
	}
	return known
}

// ListOutput is the Output of a completed ListTools step.
func ListOutput(tools []RemoteTool) []byte {
	if tools == nil {
		tools = []RemoteTool{}
	}
	return marshal(tools)
}

// noParameters is the schema of a tool that says nothing of its own.
const noParameters = `{"type":"object"}`

// readTools reads a list of tools. What has no name, or one that came before,
// is left out; what has no schema takes any object.
func readTools(raw []byte) ([]RemoteTool, error) {
	var all []RemoteTool
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("response: list of tools: %w", err)
	}
	if all == nil {
		return nil, errors.New("response: list of tools: null")
	}
	tools := make([]RemoteTool, 0, len(all))
	for _, t := range all {
		if t.Name == "" || slices.ContainsFunc(tools, func(o RemoteTool) bool { return o.Name == t.Name }) {
			continue
		}
		if t.InputSchema = compact(t.InputSchema); t.InputSchema[0] != '{' {
			t.InputSchema = json.RawMessage(noParameters)
		}
		if isNull(t.Annotations) {
			t.Annotations = nil
		}
		tools = append(tools, t)
	}
	return tools, nil
}

// LocalList is what a ListTools step answers for a label of this host.
func LocalList(local []ServerTool, label string) []RemoteTool {
	tools := []RemoteTool{}
	for _, t := range local {
		if t.Plugin != label || t.Remote {
			continue
		}
		schema := t.Parameters
		if isNull(schema) {
			schema = json.RawMessage(noParameters)
		}
		tools = append(tools, RemoteTool{Name: t.Tool, Description: t.Description, InputSchema: schema})
	}
	return tools
}

// ToolsOf returns the server tools that the response's model is offered: local
// ones, with the approval that the request asks for, and those of the brief's
// remote servers, from what steps or else the context's items list. A remote
// tool has its own name if no other tool was offered with it and every upstream
// takes it, else that of its server before it. Until a server's list is there it has no
// tools.
func ToolsOf(b Brief, local []ServerTool, steps []Step) []ServerTool {
	tools := slices.Clone(local)
	for i, t := range tools {
		for _, ref := range b.Request.Servers {
			if ref.Label == t.Plugin && ref.URL == "" && ref.Approval != nil && ref.Approval.Needed(t.Tool) {
				tools[i].Approval = true
			}
		}
	}
	named := namer{}
	for _, f := range b.Request.Functions {
		named[f.Name]++
	}
	for _, t := range tools {
		named[t.Name] = 1
	}
	for _, o := range b.Offers { // also those that the host has no more: no attempt renames a tool
		named[o.Name] = 1
	}
	var remote []ServerTool
	known := listed(b)
	for _, r := range b.Remotes {
		for _, t := range remoteList(r, known[r.Label], steps) {
			named[t.Name]++
			remote = append(remote, ServerTool{
				Offer: Offer{Plugin: r.Label, Tool: t.Name}, Description: t.Description, Parameters: t.InputSchema,
				Effects: "once", Remote: true, Approval: r.Approval.Needed(t.Name),
			})
		}
	}
	for i, t := range remote {
		remote[i].Name = named.name(t.Offer)
	}
	return append(tools, remote...)
}

// remoteList returns the tools of a server that the client allows.
func remoteList(r Remote, known []RemoteTool, steps []Step) []RemoteTool {
	for _, s := range steps {
		if s.Scope != "" || s.Kind != ListTools || s.Plugin != r.Label {
			continue
		}
		known = nil
		if s.State == Completed {
			known, _ = readTools(s.Output) // a list that is broken is an empty one
		}
	}
	return slices.DeleteFunc(slices.Clone(known), func(t RemoteTool) bool {
		return r.Allowed != nil && !slices.Contains(r.Allowed, t.Name)
	})
}

// namer counts how many tools want each name.
type namer map[string]int

// name returns the name that the model knows a remote tool by.
func (n namer) name(o Offer) string {
	if n[o.Tool] == 1 && legalName(o.Tool) {
		return o.Tool
	}
	base := safeName(o.Plugin + "__" + o.Tool)
	name := base
	for i := 2; n[name] > 0; i++ {
		suffix := fmt.Sprintf("_%d", i)
		name = base[:min(len(base), maxName-len(suffix))] + suffix
	}
	n[name]++
	return name
}

// maxName is the longest name of a tool that every upstream takes.
const maxName = 64

// Approvals returns the calls that the request's input approves or refuses, in
// the order of its answers. What was answered by a call already is left out,
// and so is what stands in the context: it was the business of the response
// whose input it is. Of two answers to the same request a refusal counts.
func Approvals(b Brief, tools []ServerTool) []Approved {
	asked, done := map[string]Approved{}, map[string]bool{}
	for _, it := range allItems(b) {
		var i wireItem
		if it.Type != itemApproval && it.Type != itemMCPCall || json.Unmarshal(it.Raw, &i) != nil {
			continue
		}
		if it.Type == itemMCPCall {
			done[i.Approval] = true
			continue
		}
		asked[i.ID] = Approved{
			RequestID: i.ID, Label: i.Label, Tool: i.Name,
			Call: Call{ID: i.ID, Name: nameOf(tools, i.Label, i.Name), Arguments: i.Arguments},
		}
	}
	var all []Approved
	for _, it := range b.Request.Input {
		var answer struct {
			RequestID string `json:"approval_request_id"`
			Approve   bool   `json:"approve"`
			Reason    string `json:"reason"`
		}
		if it.Type != itemApprovalAnswer || json.Unmarshal(it.Raw, &answer) != nil {
			continue
		}
		a, ok := asked[answer.RequestID]
		if !ok || done[answer.RequestID] {
			continue
		}
		a.Approve, a.Reason = answer.Approve, answer.Reason
		at := slices.IndexFunc(all, func(o Approved) bool { return o.RequestID == a.RequestID })
		switch {
		case at < 0:
			all = append(all, a)
		case !a.Approve:
			all[at] = a
		}
	}
	return all
}

// nameOf is the name that the model knows a tool by; "" if there is none.
func nameOf(tools []ServerTool, label, tool string) string {
	for _, t := range tools {
		if t.Plugin == label && t.Tool == tool {
			return t.Name
		}
	}
	return ""
}
