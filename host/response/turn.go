package response

import (
	"encoding/json"
	"slices"
	"strings"
)

// turn is an item that waits for its turn, or for its step.
type turn struct {
	call    Call
	late    string // text that the model wrote after its calls began; call is zero
	before  *Step  // of a step before the first model call; call has its call id
	item    *outItem
	receipt *ToolReceipt
}

// ToolReceipt is how a tool call ended.
type ToolReceipt struct {
	Output string // what the model is given, errors included
	Error  string // code; with Failed
	Failed bool
}

// unknownServer is the server_label of calls of tools that there are not: the
// model was told, and the client sees that it was.
const unknownServer = "unknown"

// Planned emits what the new steps of a plan show before they run: those before
// the first model call, which list a server's tools or were approved, come out
// as items in their order. It is called with each plan that is followed.
func (s *Stream) Planned(p Plan) []Event {
	if s.ended {
		return nil
	}
	s.start()
	steps := slices.Concat(p.Settle, p.Run, p.Record)
	slices.SortFunc(steps, func(a, b Step) int { return a.Ordinal - b.Ordinal })
	for _, st := range steps {
		if st.Scope != "" {
			continue
		}
		s.modeled = s.modeled || st.Kind == ModelCall
		if !s.modeled && st.Ordinal >= s.before {
			s.before = st.Ordinal + 1
			s.queue = append(s.queue, turnOf(st))
		}
	}
	s.pump()
	return s.take()
}

// turnOf lines up a step before the first model call.
func turnOf(st Step) *turn {
	return &turn{before: &st, call: Call{ID: st.CallID, Name: st.Tool, Arguments: string(st.Input)}}
}

// StepDone emits the end of a settled step of the response itself that lists
// tools or calls one, and of what waited for it.
func (s *Stream) StepDone(st Step) []Event {
	if s.ended || st.Scope != "" || st.Kind == ModelCall {
		return nil
	}
	r := Receipt(st)
	if st.Kind == ToolCall {
		return s.ToolDone(st.CallID, r)
	}
	return s.settle(&r, func(t *turn) bool {
		return t.before != nil && t.before.Kind == ListTools && t.before.Ordinal == st.Ordinal
	})
}

// ToolDone emits the end of a server tool's call and of what waited for it, or
// nothing while calls before it run. Unknown ids and second receipts are ignored.
func (s *Stream) ToolDone(callID string, r ToolReceipt) []Event {
	if s.ended {
		return nil
	}
	return s.settle(&r, func(t *turn) bool {
		return t.call.ID == callID && t.late == "" && (t.before == nil || t.before.Kind == ToolCall)
	})
}

// settle gives the receipt to the first turn that fits and has none.
func (s *Stream) settle(r *ToolReceipt, fits func(*turn) bool) []Event {
	for _, t := range s.queue {
		if t.receipt == nil && fits(t) {
			t.receipt = r
			break
		}
	}
	s.pump()
	return s.take()
}

// enqueue lines up the calls of a model call whose first one is open.
func (s *Stream) enqueue(calls []Call, open *outItem, late string) {
	var others []*turn
	for _, c := range calls {
		if c.ID == open.callID {
			s.queue = append(s.queue, &turn{call: c, item: open})
		} else {
			others = append(others, &turn{call: c})
		}
	}
	if late != "" {
		s.queue = append(s.queue, &turn{late: late})
	}
	s.queue = append(s.queue, others...)
}

// pump brings out what has its turn.
func (s *Stream) pump() {
	for len(s.queue) > 0 && s.turn(s.queue[0]) {
		s.queue = s.queue[1:]
	}
}

// turn brings out one item as far as it goes; false while its step runs.
func (s *Stream) turn(t *turn) bool {
	if t.late != "" {
		s.text(t.late, nil)
		s.closeItem(itemEnd{status: statusCompleted})
		s.try = tried{}
		return true
	}
	if t.item == nil {
		t.item = s.addTurn(t)
	}
	if t.item.kind == itemMCPList {
		return s.turnList(t)
	}
	s.finishArgs(t)
	end := itemEnd{status: statusCompleted}
	switch {
	case t.item.kind != itemMCPCall:
	case t.receipt == nil:
		return false
	case t.receipt.Failed:
		end.status = statusFailed
		end.err = marshal(toolExecutionError{"tool_execution_error", t.receipt.Error, errorMessage(t.receipt.Output)})
	default:
		end.output = &t.receipt.Output
	}
	s.closeItem(end)
	return true
}

// finishArgs emits what no delta brought of a call's arguments.
func (s *Stream) finishArgs(t *turn) {
	if t.item.kind == itemApproval {
		return
	}
	args := t.call.Arguments
	if t.item.kind == itemCustomTool {
		args = CustomInput(args)
	}
	if shown := t.item.args.String(); strings.HasPrefix(args, shown) {
		s.addArgs(args[len(shown):])
	}
	s.closeArgs()
}

// turnList ends a list of tools once it is there.
func (s *Stream) turnList(t *turn) bool {
	if t.receipt == nil {
		return false
	}
	end := itemEnd{}
	if t.receipt.Failed {
		end.err = marshal(errorMessage(t.receipt.Output))
	} else {
		end.tools = listOf([]byte(t.receipt.Output))
	}
	s.closeItem(end)
	return true
}

// listOf is a list of tools as it is sent.
func listOf(output []byte) json.RawMessage {
	tools, err := readTools(output)
	if err != nil {
		return nil
	}
	return marshal(tools)
}

// addTurn opens the item of a turn.
func (s *Stream) addTurn(t *turn) *outItem {
	st := t.before
	switch {
	case st == nil:
		return s.addCall(t.call)
	case st.Kind == ListTools:
		return s.add(&outItem{kind: itemMCPList, id: s.itemID("mcpl"), label: st.Plugin})
	}
	label := st.Plugin
	if label == "" {
		label = unknownServer
	}
	return s.add(&outItem{
		kind: itemMCPCall, id: s.itemID("mcp"), callID: st.CallID, name: st.Tool, label: label, approval: st.CallID,
	})
}

// addCall opens the item of a call; its type follows from the name alone.
func (s *Stream) addCall(c Call) *outItem {
	it := &outItem{callID: c.ID, name: c.Name, label: unknownServer}
	prefix := "mcp"
	if t, ok := s.set.tools[c.Name]; ok {
		it.name, it.label = t.Tool, t.Plugin
	}
	switch s.set.origin(c.Name) {
	case client:
		it.kind, prefix, it.name = itemFunction, "fc", c.Name
		if s.set.functions[c.Name].Custom {
			it.kind, prefix = itemCustomTool, "ctc"
		}
	case servers, nobody:
		it.kind = itemMCPCall
		if s.set.asks(c.Name) {
			it.kind, prefix = itemApproval, "mcpr"
			it.args.WriteString(c.Arguments)
		}
	}
	it.id = s.itemID(prefix)
	return s.add(it)
}
