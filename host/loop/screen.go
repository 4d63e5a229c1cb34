package loop

import (
	"github.com/casemate/casemate/host/response"
)

// screen is what a client sees of a response: its stream. A nil screen shows
// nothing; that is the one of an agent, and of a call without a model. It
// belongs to the goroutine that drives the root and is lent to the one model
// call that runs there, if any.
type screen struct {
	stream *response.Stream
	out    *emitter
	live   bool // somebody may watch the response grow
}

// show emits a delta. Of a response that only its end is waited for, nothing is
// shown before its step is settled, so a model call that is cut may be tried
// again.
func (s *screen) show(d response.Delta) {
	if s != nil && s.live {
		s.out.deltas(s.stream.Delta(d))
	}
}

// visible reports whether the model call that runs has shown anything.
func (s *screen) visible() bool { return s != nil && s.stream.Visible() }

// again forgets the model call that ran, which is to be made again.
func (s *screen) again() []response.Event {
	if s == nil {
		return nil
	}
	return s.stream.Interrupted()
}

// modelDone is what a model call's end shows.
func (s *screen) modelDone(out response.ModelOutput) []response.Event {
	if s == nil {
		return nil
	}
	return s.stream.ModelDone(out)
}

// stepDone is what the end of another step shows.
func (s *screen) stepDone(st response.Step) []response.Event {
	if s == nil {
		return nil
	}
	return s.stream.StepDone(st)
}

// planned is what a plan shows before its steps do.
func (s *screen) planned(p response.Plan) []response.Event {
	if s == nil {
		return nil
	}
	return s.stream.Planned(p)
}

// offer tells the stream which tools there are.
func (s *screen) offer(tools []response.ServerTool) {
	if s != nil {
		s.stream.Offer(tools)
	}
}
