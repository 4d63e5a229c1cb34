package response

import (
	"slices"
	"strings"
)

// Rebuild tells a restored stream the response's steps as stored. It pairs the
// items that are not done with their steps and puts back the calls, late text
// and receipts that were held back for their turn, since the log does not hold
// them. It emits nothing. An open item that no step accounts for is an
// interrupted try's: Visible reports it and Interrupted closes it.
func (s *Stream) Rebuild(steps []Step) {
	s.queue, s.visible = nil, s.open() != nil
	sorted, first := ownSteps(steps)
	s.modeled = first < len(sorted)
	next := s.rebuildBefore(sorted[:first]) // the first item that may be the next model call's
	for i, step := range sorted {
		if step.Kind != ModelCall || step.State != Completed {
			continue
		}
		out, err := DecodeModelOutput(step.Output)
		if err != nil || out.truncated() {
			continue
		}
		next = s.rebuildCalls(out, receiptsAfter(sorted[i+1:]), next)
	}
}

// Replay emits what the response's steps as stored have to show, on a stream
// that has emitted nothing but its beginning: that of a response without a log,
// which another attempt goes on with.
func (s *Stream) Replay(steps []Step) []Event {
	sorted, first := ownSteps(steps)
	events := s.Planned(Plan{Record: sorted[:first]})
	s.modeled = s.modeled || first < len(sorted)
	for _, st := range sorted {
		switch {
		case !st.Settled():
		case st.Kind != ModelCall:
			events = append(events, s.StepDone(st)...)
		case st.State == Completed:
			if out, err := DecodeModelOutput(st.Output); err == nil {
				events = append(events, s.ModelDone(out)...)
			}
		}
	}
	return events
}

// ownSteps returns the steps of the response itself, by ordinal, and the place
// of the first model call, after the last one if there is none.
func ownSteps(steps []Step) (sorted []Step, first int) {
	for _, st := range steps {
		if st.Scope == "" {
			sorted = append(sorted, st)
		}
	}
	slices.SortFunc(sorted, func(a, b Step) int { return a.Ordinal - b.Ordinal })
	if first = slices.IndexFunc(sorted, func(st Step) bool { return st.Kind == ModelCall }); first < 0 {
		first = len(sorted)
	}
	return sorted, first
}

// rebuildBefore pairs the steps before the first model call with their items,
// which are the first of all, and lines up those that are not done. It returns
// how many are there.
func (s *Stream) rebuildBefore(steps []Step) int {
	s.before = 0
	for i, st := range steps {
		s.before = st.Ordinal + 1
		t := turnOf(st)
		if i < len(s.items) {
			t.item = s.items[i]
			t.item.callID = st.CallID
		}
		if st.Settled() {
			r := Receipt(st)
			t.receipt = &r
		}
		if t.item == nil || !t.item.done {
			s.queue = append(s.queue, t)
			s.visible = s.visible && t.item == nil
		}
	}
	return min(len(steps), len(s.items))
}

// rebuildCalls pairs the calls of one model call with their items, of which the
// first is at next or after it, and lines up those that are not done. It returns
// where the items of the following model call may begin.
func (s *Stream) rebuildCalls(out ModelOutput, receipts map[string]*ToolReceipt, next int) int {
	first := s.callItem(next)
	shown := s.shownBefore(first, next)
	held := late(rest(out.Text, shown.text), rest(out.Refusal, shown.refusal))
	for n, c := range s.inOrder(out.Calls, first) {
		t := &turn{call: c, receipt: receipts[c.ID]}
		if at := s.callItem(next); at < len(s.items) {
			t.item, next = s.items[at], at+1
			t.item.callID = c.ID
		}
		done := t.item != nil && t.item.done
		if !done {
			s.queue = append(s.queue, t)
			s.visible = s.visible && t.item == nil
		}
		switch {
		case n > 0 || held == "":
		case !done:
			s.queue = append(s.queue, &turn{late: held})
		case next < len(s.items) && s.items[next].kind == itemMessage:
			next++ // it came out with the end of the first call
		}
	}
	return next
}

// isCall reports whether the item is of a call that a settled model call made,
// not one that an interrupted try left behind.
func (it *outItem) isCall() bool {
	switch it.kind {
	case itemFunction, itemCustomTool, itemMCPCall, itemApproval:
		return !it.interrupted()
	}
	return false
}

func (it *outItem) interrupted() bool { return it.done && it.status == statusIncomplete }

// callItem returns the index of the first call's item from at on; the number of
// items if there is none.
func (s *Stream) callItem(at int) int {
	for at < len(s.items) && !s.items[at].isCall() {
		at++
	}
	return at
}

// shownBefore counts what a model call showed before its first call, whose item
// is at first. Items from the index from on are its own but for those of
// interrupted tries, each of which ends with an incomplete one.
func (s *Stream) shownBefore(first, from int) tried {
	var t tried
	for _, it := range s.items[from:first] {
		if it.interrupted() {
			t = tried{}
			continue
		}
		for _, p := range it.parts {
			switch p.kind {
			case partText:
				t.text += p.text.Len()
			case partRefusal:
				t.refusal += p.text.Len()
			}
		}
	}
	return t
}

// inOrder returns calls in the order in which their items come out: the one
// that was streamed first, whose item is at first, stands before the others,
// also where it is not the first that the model began.
func (s *Stream) inOrder(calls []Call, first int) []Call {
	if first >= len(s.items) {
		return calls
	}
	it := s.items[first]
	i := slices.IndexFunc(calls, func(c Call) bool { return s.mayShow(it, c) })
	if i < 1 {
		return calls
	}
	return slices.Insert(slices.Delete(slices.Clone(calls), i, i+1), 0, calls[i])
}

// mayShow reports whether the item can be the call's.
func (s *Stream) mayShow(it *outItem, c Call) bool {
	if it.kind == itemFunction || it.kind == itemCustomTool {
		return it.callID == c.ID
	}
	name, label := c.Name, unknownServer
	if t, ok := s.set.tools[c.Name]; ok {
		name, label = t.Tool, t.Plugin
	}
	return it.name == name && it.label == label && strings.HasPrefix(c.Arguments, it.args.String())
}

// receiptsAfter maps call ids to the receipts of the tool calls up to the next
// model call.
func receiptsAfter(steps []Step) map[string]*ToolReceipt {
	m := map[string]*ToolReceipt{}
	for _, s := range steps {
		if s.Kind == ModelCall {
			break
		}
		if s.Settled() {
			r := Receipt(s)
			m[s.CallID] = &r
		}
	}
	return m
}
