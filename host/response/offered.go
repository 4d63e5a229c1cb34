package response

import (
	"slices"
	"strings"
)

// Offered is what one model call may use, whatever API it is made in.
type Offered struct {
	Functions []FunctionTool // of the client, sorted by name
	Servers   []ServerTool   // sorted by name
	Choice    string         // "none", "auto" or "required"; "": not said, or nothing to choose from
	Forced    string         // with "required": the tool that has to be called; "": any
}

// Offer returns what a model call may use: what tool_choice does not allow is
// not offered in any of them. A forced choice holds for the first one only,
// since the loop would never end otherwise.
func (r *Request) Offer(tools []ServerTool, first bool) Offered {
	set := newToolset(r, tools)
	forced := set.choice.forced
	label := first && forced.Type == "mcp" && forced.Name == ""
	offered := func(name string) bool {
		allowed := set.choice.mode == "none" || set.allows(name)
		return allowed && (!label || set.named([]toolRef{forced}, name))
	}
	var o Offered
	for name, f := range set.functions {
		if _, server := set.tools[name]; !server && offered(name) {
			o.Functions = append(o.Functions, f)
		}
	}
	for name, t := range set.tools {
		if offered(name) {
			o.Servers = append(o.Servers, t)
		}
	}
	slices.SortFunc(o.Functions, func(a, b FunctionTool) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(o.Servers, func(a, b ServerTool) int { return strings.Compare(a.Name, b.Name) })
	switch {
	case len(o.Functions)+len(o.Servers) == 0:
	case set.choice.mode != "required":
		o.Choice = set.choice.mode
	case !first:
		o.Choice = "auto"
	case forced.Type == "" || label:
		o.Choice = "required"
	default:
		o.Choice = "auto" // a forced tool that is not there
		if o.Forced = o.first(set, forced); o.Forced != "" {
			o.Choice = "required"
		}
	}
	return o
}

// first returns the first of the offered names that ref means.
func (o Offered) first(set toolset, ref toolRef) string {
	names := make([]string, 0, len(o.Functions)+len(o.Servers))
	for _, f := range o.Functions {
		names = append(names, f.Name)
	}
	for _, t := range o.Servers {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	i := slices.IndexFunc(names, func(name string) bool { return set.named([]toolRef{ref}, name) })
	if i < 0 {
		return ""
	}
	return names[i]
}

// Items returns the brief's context and input, oldest first.
func (j Brief) Items() []Item { return transcriptItems(j) }

// PairOutputs maps the index of each call of the client's to the index of its
// output. Calls without one are not in it.
func PairOutputs(items []Item) map[int]int { return pairOutputs(items) }

// SafeName makes s a name that every upstream takes for a tool.
func SafeName(s string) string { return safeName(s) }
