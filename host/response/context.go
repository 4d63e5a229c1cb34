package response

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/queue"
)

// The types of items that only clients send.
const (
	itemReference      = "item_reference"
	itemFunctionOutput = "function_call_output"
	itemCustomOutput   = "custom_tool_call_output"
	itemApprovalAnswer = "mcp_approval_response"
	itemCompaction     = "compaction"
)

// idPrefixes begin the ids that input items get, by type.
var idPrefixes = map[string]string{
	itemMessage: "msg", itemReasoning: "rs", itemFunction: "fc", itemFunctionOutput: "fco",
	itemCustomTool: "ctc", itemCustomOutput: "ctco", itemMCPCall: "mcp", itemMCPList: "mcpl",
	itemApproval: "mcpr", itemApprovalAnswer: "mcpa", itemCompaction: "cmp",
}

// NameItems returns the items, each with a type and an id that no other has, so
// that they can be listed and referred to. What lacks an id, or has that of an
// item before it, gets one that holds id and its place.
func NameItems(items []Item, id queue.ID) []Item {
	named, taken := make([]Item, len(items)), make(map[string]bool, len(items))
	for _, it := range items {
		taken[it.ID] = true
	}
	used := make(map[string]bool, len(items))
	for i, it := range items {
		if it.ID == "" || used[it.ID] {
			prefix := idPrefixes[it.Type]
			if prefix == "" {
				prefix = "item"
			}
			name := prefix + "_" + id.String() + "_i" + strconv.Itoa(i)
			for taken[name] {
				name += "i"
			}
			taken[name] = true
			it = it.with(map[string]string{"id": name, "type": it.Type})
		}
		used[it.ID] = true
		named[i] = it
	}
	return named
}

// with returns the item with some members set to strings.
func (it Item) with(members map[string]string) Item {
	m := map[string]json.RawMessage{}
	if json.Unmarshal(it.Raw, &m) != nil || m == nil {
		return it
	}
	for k, v := range members {
		m[k] = marshal(v)
	}
	var out Item
	if out.UnmarshalJSON(marshal(m)) != nil {
		return it
	}
	return out
}

// ItemResponse returns the response that an item's id was made in.
func ItemResponse(itemID string) (queue.ID, bool) {
	parts := strings.Split(itemID, "_")
	if len(parts) != 3 || strings.Trim(strings.TrimPrefix(parts[2], "i"), "0123456789") != "" {
		return queue.ID{}, false
	}
	id, err := queue.ParseID(parts[1])
	return id, err == nil
}

// References reports whether the item stands for another, the one with its id.
func (it Item) References() bool { return it.Type == itemReference }

// OutputItems returns the output of a Response object.
func OutputItems(response []byte) ([]Item, error) {
	var o struct {
		Output []Item `json:"output"`
	}
	if err := json.Unmarshal(response, &o); err != nil {
		return nil, fmt.Errorf("response: output: %w", err)
	}
	return o.Output, nil
}

// CheckOutputs refuses an output that no call in the input or context precedes,
// and a call that no output follows: no model can be shown either. So it does an
// answer to an approval that nothing asked for. The error is a *BadRequest.
func CheckOutputs(j Brief) error {
	items := allItems(j)
	outputs := pairOutputs(items)
	answered := map[int]bool{}
	for _, o := range outputs {
		answered[o] = true
	}
	for i, it := range items {
		_, called := outputs[i]
		switch it.Type {
		case itemFunctionOutput, itemCustomOutput:
			if !answered[i] {
				return &BadRequest{"input", "invalid_value", fmt.Sprintf("No tool call found for function call output with call_id %.64q.", it.CallID)}
			}
		case itemFunction, itemCustomTool:
			if it.Status != statusIncomplete && !called {
				return &BadRequest{"input", "invalid_value", fmt.Sprintf("No tool output found for function call %.64q.", it.CallID)}
			}
		}
	}
	return checkApprovals(items)
}

// checkApprovals refuses answers without a question, and second ones.
func checkApprovals(items []Item) error {
	const open, done = 1, 2
	asked := map[string]int{}
	for _, it := range items {
		switch it.Type {
		case itemApproval:
			asked[it.ID] = open
		case itemApprovalAnswer:
			id := approvalOf(it)
			if asked[id] != open {
				return &BadRequest{"input", "invalid_value", fmt.Sprintf("No open approval request found for approval response to %.64q.", id)}
			}
			asked[id] = done
		}
	}
	return nil
}

// approvalOf returns the id of the request that an approval response answers.
func approvalOf(it Item) string {
	var a struct {
		ID string `json:"approval_request_id"`
	}
	_ = json.Unmarshal(it.Raw, &a) // of another type: no id
	return a.ID
}

// allItems returns context and input, oldest first.
func allItems(j Brief) []Item {
	items := append([]Item(nil), j.Context...)
	if j.Request != nil {
		items = append(items, j.Request.Input...)
	}
	return items
}

// transcriptItems returns what the model is shown of context and input, oldest
// first.
func transcriptItems(j Brief) []Item {
	items := allItems(j)
	if len(j.Dropped) == 0 {
		return items
	}
	kept := items[:0]
	for i, it := range items {
		if _, dropped := slices.BinarySearch(j.Dropped, i); !dropped {
			kept = append(kept, it)
		}
	}
	return kept
}

// pairOutputs maps the index of each call of the client's tools to the index of
// the first output with its call id that follows it and is not another call's.
// Ids may repeat over the turns of a long context.
func pairOutputs(items []Item) map[int]int {
	type call struct{ output, id string }
	open := map[call][]int{} // oldest first
	pairs := map[int]int{}
	for i, it := range items {
		switch it.Type {
		case itemFunction:
			open[call{itemFunctionOutput, it.CallID}] = append(open[call{itemFunctionOutput, it.CallID}], i)
		case itemCustomTool:
			open[call{itemCustomOutput, it.CallID}] = append(open[call{itemCustomOutput, it.CallID}], i)
		case itemFunctionOutput, itemCustomOutput:
			key := call{it.Type, it.CallID}
			if calls := open[key]; len(calls) > 0 {
				pairs[calls[0]] = i
				open[key] = calls[1:]
			}
		}
	}
	return pairs
}

// Fit makes what the model is shown of context and input count to at most limit,
// by dropping the oldest items, calls together with their outputs. Neither the
// last user message nor what a system, a developer or a compaction says is
// dropped, nor what counts for nothing; false: what is left is still too much.
func (j *Brief) Fit(limit int, count func(Item) int) bool {
	items := allItems(*j)
	total, counts, last := 0, make([]int, len(items)), -1
	for i, it := range items {
		counts[i] = count(it)
		total += counts[i]
		if roleOf(it) == "user" {
			last = i
		}
	}
	partners := partnersOf(items)
	gone := map[int]bool{}
	var drop func(i int)
	drop = func(i int) {
		if gone[i] {
			return
		}
		gone[i] = true
		total -= counts[i]
		j.Dropped = append(j.Dropped, i)
		for _, k := range partners[i] {
			drop(k)
		}
	}
	for i, it := range items {
		if total <= limit {
			break
		}
		if i != last && counts[i] > 0 && !lasting(it) {
			drop(i)
		}
	}
	slices.Sort(j.Dropped)
	return total <= limit
}

// roleOf returns the role of a message, "" of another item.
func roleOf(it Item) string {
	var m struct {
		Role string `json:"role"`
	}
	if it.Type != itemMessage || json.Unmarshal(it.Raw, &m) != nil {
		return ""
	}
	return m.Role
}

// lasting reports whether an item is never dropped.
func lasting(it Item) bool {
	role := roleOf(it)
	return role == "system" || role == "developer" || it.Type == itemCompaction
}

// partnersOf maps the index of each item to those that make no sense without it.
func partnersOf(items []Item) map[int][]int {
	partners := map[int][]int{}
	join := func(a, b int) {
		partners[a], partners[b] = append(partners[a], b), append(partners[b], a)
	}
	for call, output := range pairOutputs(items) {
		join(call, output)
	}
	asked := map[string]int{}
	for i, it := range items {
		switch it.Type {
		case itemApproval:
			asked[it.ID] = i
		case itemApprovalAnswer, itemMCPCall:
			if q, ok := asked[approvalOf(it)]; ok {
				join(q, i)
			}
		}
	}
	return partners
}
