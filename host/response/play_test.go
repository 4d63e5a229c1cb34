package response_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

// model plays the next turn: lines of a chunk as JSON, or in short:
//
//	text|reason|refuse JSON-STRING
//	call INDEX ID NAME ARGUMENTS    (- stands for nothing)
//	finish REASON IN OUT
//	body JSON                       a whole chat.completion
//	fail CLASS STATUS               ends the try
//	crash                           the worker dies
func (s *sim) model(st response.Step) (crashed bool) {
	chat, err := translate.ChatRequest(translate.Call{Brief: s.brief, Steps: s.steps, Tools: s.tools})
	if err != nil {
		s.t.Fatalf("ChatRequest: %v", err)
	}
	s.chats = append(s.chats, string(chat))
	s.turn++
	script, ok := s.files["model/"+strconv.Itoa(s.turn)]
	if !ok {
		script = s.files["model/*"]
	}
	f := translate.NewChatReader(st.IdempotencyKey(simID))
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "":
		case "crash":
			return true
		case "fail":
			fields := strings.Fields(arg)
			st.State, st.Class = response.Failed, queue.Class(fields[0])
			st.Status, _ = strconv.Atoi(fields[1])
			s.put(st)
			return false
		default:
			s.fold(f, word, arg, line)
		}
	}
	out, err := f.Output()
	if err != nil {
		if !errors.Is(err, translate.ErrCut) {
			s.t.Errorf("Output: %v", err)
		}
		st.State, st.Class = response.Failed, queue.UpstreamInvalid
		s.put(st)
		return false
	}
	if again, err := response.DecodeModelOutput(out.Encode()); err != nil || !slices.Equal(again.Calls, out.Calls) || again.Text != out.Text {
		s.t.Errorf("model output does not survive its stored form: %v", err)
	}
	st.State, st.Output, st.Usage = response.Completed, out.Encode(), out.Usage
	s.put(st)
	s.emit(s.stream.ModelDone(out))
	return false
}

func (s *sim) fold(f translate.Reader, word, arg, line string) {
	add := f.Chunk
	if word == "body" {
		add = f.Body
	}
	deltas, err := add([]byte(chunkOf(word, arg, line)))
	if err != nil {
		s.t.Fatalf("fold %q: %v", line, err)
	}
	for _, d := range deltas {
		if s.brief.Request.Stream {
			s.emit(s.stream.Delta(d))
		}
	}
}

// chunkOf expands a short line of a script.
func chunkOf(word, arg, line string) string {
	short := func(v string) string {
		if v == "-" {
			return ""
		}
		return v
	}
	delta := func(d string) string {
		return `{"id":"chatcmpl-1","model":"m-1","choices":[{"index":0,"delta":` + d + `}]}`
	}
	switch word {
	case "text":
		return delta(`{"content":` + arg + `}`)
	case "reason":
		return delta(`{"reasoning_content":` + arg + `}`)
	case "refuse":
		return delta(`{"refusal":` + arg + `}`)
	case "call":
		a := strings.SplitN(arg, " ", 4)
		args, _ := json.Marshal(short(a[3]))
		return delta(fmt.Sprintf(`{"tool_calls":[{"index":%s,"id":%q,"function":{"name":%q,"arguments":%s}}]}`,
			a[0], short(a[1]), short(a[2]), args))
	case "finish":
		a := strings.Fields(arg)
		return fmt.Sprintf(`{"choices":[{"index":0,"delta":{},"finish_reason":%q}],"usage":{"prompt_tokens":%s,"completion_tokens":%s}}`, a[0], a[1], a[2])
	case "body":
		return arg
	}
	return line
}

// tool plays tool/CALLID/TRY, or tool/CALLID, or a default: the first line may
// be "error CLASS CODE" or "crash", else all of it is the output. A line
// "effect" before it begins one.
func (s *sim) tool(st response.Step) (crashed bool) {
	script, ok := s.files[fmt.Sprintf("tool/%s/%d", st.CallID, st.Tries)]
	if !ok {
		script, ok = s.files["tool/"+st.CallID]
	}
	if !ok {
		script = "result of " + st.CallID
	}
	script = strings.TrimSuffix(script, "\n")
	if rest, ok := strings.CutPrefix(script, "effect\n"); ok {
		script, st.EffectStarted = rest, true
		s.put(st)
	}
	switch f := strings.Fields(script); {
	case len(f) > 0 && f[0] == "crash":
		return true
	case len(f) > 2 && f[0] == "error":
		st.State, st.Class, st.Code = response.Failed, queue.Class(f[1]), f[2]
		s.put(st)
		return false
	}
	st.State, st.Output = response.Completed, []byte(script)
	s.put(st)
	s.emit(s.stream.ToolDone(st.CallID, response.Receipt(st)))
	return false
}

// list plays remote/LABEL/TRY or remote/LABEL, a list of tools as JSON, "crash"
// or "error CODE", or lists what there is of this host.
func (s *sim) list(st response.Step) (crashed bool) {
	script, ok := s.files[fmt.Sprintf("remote/%s/%d", st.Plugin, st.Tries)]
	if !ok {
		script = s.files["remote/"+st.Plugin]
	}
	script = strings.TrimSpace(script)
	switch {
	case script == "":
		st.State, st.Output = response.Completed, response.ListOutput(response.LocalList(s.local, st.Plugin))
	case script == "crash":
		return true
	case strings.HasPrefix(script, "error "):
		st.State, st.Class, st.Code = response.Failed, queue.UpstreamNetwork, script[len("error "):]
		st.Output = response.ErrorOutput(st.Code, "The server did not answer.")
		s.put(st)
		return false
	default:
		st.State, st.Output = response.Completed, []byte(script)
	}
	s.put(st)
	s.emit(s.stream.StepDone(st))
	return false
}

// offer recomputes what the model is offered.
func (s *sim) offer() {
	s.tools = response.ToolsOf(s.brief, s.local, s.steps)
	s.stream.Offer(s.tools)
}
