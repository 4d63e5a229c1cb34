package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Fault is why an input is not valid.
type Fault struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
	Line    *int    `json:"line"`
}

// maxCustomID is the longest custom_id, in bytes.
const maxCustomID = 512

// byteOrderMark may stand before the first line.
var byteOrderMark = []byte("\xef\xbb\xbf")

// checking is one group of lines that is checked.
type checking struct {
	*held
	faults []Fault
	lines  []store.Line
	taken  map[string]bool // custom ids of the group
}

// validate checks the next group of lines and notes where they are.
func (h *held) validate(ctx context.Context) (more bool, err error) {
	c := &checking{held: h, taken: make(map[string]bool)}
	if h.b.Faults != nil {
		if err := json.Unmarshal(h.b.Faults, &c.faults); err != nil {
			return false, fmt.Errorf("batch: faults: %w", err)
		}
	}
	b := h.b
	read := c.group
	if b.Parent != (queue.ID{}) {
		read = c.again
	}
	end, err := read(ctx, &b)
	if err != nil {
		return false, err
	}
	b.Total += len(c.lines)
	if b.Total > h.opt.MaxLines {
		c.fault(0, "too_many_requests", "", fmt.Sprintf("The input has more than %d requests.", h.opt.MaxLines))
		end = true
	}
	if end && b.Total == 0 && len(c.faults) == 0 {
		c.fault(0, "empty_file", "", "The input has no requests.")
	}
	if len(c.faults) > 0 {
		if b.Faults, err = json.Marshal(c.faults[:min(len(c.faults), h.opt.MaxFaults)]); err != nil {
			return false, fmt.Errorf("batch: faults: %w", err)
		}
	}
	s := store.BatchStep{Batch: b, Lines: c.lines}
	switch {
	case len(c.faults) >= h.opt.MaxFaults, end && len(c.faults) > 0:
		s.Batch.State, s.Batch.Settled, s.Batch.Total, s.Lines = store.BatchFailed, true, 0, nil
		return false, h.step(ctx, s)
	case end:
		h.begin(&s)
	}
	return h.work(ctx, s)
}

// begin makes the step the one after which the lines become requests.
func (h *held) begin(s *store.BatchStep) {
	b := &s.Batch
	b.State, b.Line, b.Offset = store.BatchRunning, 0, 0
	b.Output, b.Errors = queue.NewID(), queue.NewID()
	for _, f := range []struct {
		id   queue.ID
		name string
	}{{b.Output, "output"}, {b.Errors, "error"}} {
		s.Grow = append(s.Grow, store.File{
			ID: f.id, Tenant: b.Tenant, Name: fmt.Sprintf("batch_%s_%s.jsonl", b.ID, f.name), Purpose: "batch_output", Batch: b.ID,
		})
	}
}

// group reads lines of the input. The custom ids of earlier groups are asked for
// once it is read: nobody else adds any, or the step is refused.
func (c *checking) group(ctx context.Context, b *store.Batch) (end bool, err error) {
	from := b.Offset
	for len(c.lines) < c.opt.Group && b.Offset-from < c.opt.GroupBytes && len(c.faults) < c.opt.MaxFaults {
		if b.Offset >= b.InputBytes {
			end = true
			break
		}
		t, ok, err := c.input.line(ctx, b.Offset, c.opt.MaxLine)
		if err != nil {
			return false, err
		}
		if !ok {
			return false, errCut
		}
		b.Line++
		b.Offset = t.next
		c.check(b.Line, t)
	}
	return end, c.unknown(ctx)
}

// unknown drops the lines whose custom ids earlier lines have.
func (c *checking) unknown(ctx context.Context) error {
	var ids []string
	for _, l := range c.lines {
		ids = append(ids, l.CustomID)
	}
	known, err := c.store.KnownIDs(ctx, c.b.ID, ids)
	if err != nil || len(known) == 0 {
		return err
	}
	taken := make(map[string]bool, len(known))
	for _, id := range known {
		taken[id] = true
	}
	kept := c.lines[:0]
	for _, l := range c.lines {
		if taken[l.CustomID] {
			c.duplicate(l.Line)
			continue
		}
		kept = append(kept, l)
	}
	c.lines = kept
	return nil
}

func (c *checking) fault(line int, code, param, message string) {
	f := Fault{Code: code, Message: message}
	if param != "" {
		f.Param = &param
	}
	if line > 0 {
		f.Line = &line
	}
	c.faults = append(c.faults, f)
}

func (c *checking) duplicate(line int) {
	c.fault(line, "duplicate_custom_id", "custom_id", "An earlier line has this custom_id.")
}

// entry is what a line holds.
type entry struct {
	CustomID *string         `json:"custom_id"`
	Method   *string         `json:"method"`
	URL      *string         `json:"url"`
	Body     json.RawMessage `json:"body"`
}

// wanted is what a body is looked at for before it is made a request of.
type wanted struct {
	Model  *string `json:"model"`
	Stream *bool   `json:"stream"`
	Store  *bool   `json:"store"`
}

// check notes a line, or what is wrong with it.
func (c *checking) check(n int, t text) {
	data := t.data
	if n == 1 {
		data = bytes.TrimPrefix(data, byteOrderMark)
	}
	if data = bytes.TrimSpace(data); len(data) == 0 && !t.long {
		return
	}
	var e entry
	switch {
	case t.long:
		c.fault(n, "line_too_long", "", fmt.Sprintf("The line is longer than %d bytes.", c.opt.MaxLine))
		return
	case !utf8.Valid(data):
		c.fault(n, "invalid_json_line", "", "The line is not valid UTF-8.")
		return
	case data[0] != '{' || json.Unmarshal(data, &e) != nil:
		c.fault(n, "invalid_json_line", "", "The line is no JSON object with custom_id, method and url, strings, and body, an object.")
		return
	}
	var w wanted
	if code, param, message := c.wrong(e, &w); code != "" {
		c.fault(n, code, param, message)
		return
	}
	if c.taken[*e.CustomID] {
		c.duplicate(n)
		return
	}
	c.taken[*e.CustomID] = true
	c.lines = append(c.lines, store.Line{
		Line: n, CustomID: *e.CustomID, Offset: t.offset, Size: t.size, Forget: w.Store != nil && !*w.Store,
	})
}

// wrong says what is wrong with a line; code "" for nothing.
func (c *checking) wrong(e entry, w *wanted) (code, param, message string) {
	missing := func(param string) (string, string, string) {
		return "missing_required_parameter", param, param + " is required."
	}
	switch {
	case e.CustomID == nil || *e.CustomID == "":
		return missing("custom_id")
	case len(*e.CustomID) > maxCustomID || strings.ContainsRune(*e.CustomID, 0):
		return "invalid_value", "custom_id", fmt.Sprintf("custom_id must have at most %d bytes and not hold U+0000.", maxCustomID)
	case e.Method == nil:
		return missing("method")
	case *e.Method != "POST":
		return "invalid_method", "method", "method must be POST."
	case e.URL == nil:
		return missing("url")
	case *e.URL != c.b.Endpoint:
		return "mismatched_url", "url", "url must be the endpoint of the batch, " + c.b.Endpoint + "."
	case len(e.Body) == 0 || e.Body[0] != '{':
		return "missing_required_parameter", "body", "body is required: a JSON object."
	case json.Unmarshal(e.Body, w) != nil:
		return "invalid_type", "body", "In body, model must be a string, and stream and store booleans."
	case w.Model == nil || *w.Model == "":
		return missing("body.model")
	case w.Stream != nil && *w.Stream:
		return "unsupported_parameter", "body.stream", "A line cannot be streamed: leave out stream."
	case strings.ContainsRune(*w.Model, 0) || !c.maker.MayUse(c.b.Tenant, *w.Model):
		return "model_not_found", "body.model", "The model does not exist, or this key may not use it."
	}
	return "", "", ""
}

// again takes over the lines of the batch's parent that did not succeed. The
// parent has ended, and of what succeeded it forgets the lines.
func (c *checking) again(ctx context.Context, b *store.Batch) (end bool, err error) {
	lines, err := c.store.Lines(ctx, b.Parent, b.Line, c.opt.Group)
	if err != nil {
		return false, fmt.Errorf("batch: lines to try again: %w", err)
	}
	for _, l := range lines {
		b.Line = l.Line
		if l.State == queue.Completed && !l.Lost {
			continue
		}
		c.lines = append(c.lines, store.Line{Line: l.Line, CustomID: l.CustomID, Offset: l.Offset, Size: l.Size, Forget: l.Forget})
	}
	return len(lines) < c.opt.Group, nil
}
