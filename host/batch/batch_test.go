package batch

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func TestBatch(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick())
	b := r.batch(r.upload("\xef\xbb\xbf" + line("a", "1") + "\r\n\n" + line("b", "fail") + "\n  \n" + line("c", "refuse") + "\n" +
		line("d", "2") + "\n" + line("e", "3"))) // no line end at the end
	b = r.until(run, b.ID, store.BatchCompleted)
	if b.Total != 5 || b.Completed != 3 || b.Failed != 2 || b.Refused != 1 || b.Faults != nil {
		t.Errorf("got %+v", b)
	}
	for _, at := range []time.Time{b.Started, b.Finalized, b.Ended} {
		if at.IsZero() {
			t.Errorf("a time is missing: %+v", b)
		}
	}
	check := func(when string) {
		t.Helper()
		id := func(n int) string { return fmt.Sprintf("batch_req_%s_%d", b.ID, n) }
		got := scrub(r.content(b.Output))
		want := `{"id":"` + id(1) + `","custom_id":"a","response":{"status_code":200,"request_id":"req_X","body":{"answer":"1 <&>"}},"error":null}
{"id":"` + id(6) + `","custom_id":"d","response":{"status_code":200,"request_id":"req_X","body":{"answer":"2 <&>"}},"error":null}
{"id":"` + id(7) + `","custom_id":"e","response":{"status_code":200,"request_id":"req_X","body":{"answer":"3 <&>"}},"error":null}
`
		if got != want {
			t.Errorf("%s: output: got\n%s\nwant\n%s", when, got, want)
		}
		got = scrub(r.content(b.Errors))
		want = `{"id":"` + id(3) + `","custom_id":"b","response":{"status_code":422,"request_id":"req_X","body":{"error":{"code":"broken"}}},"error":null}
{"id":"` + id(5) + `","custom_id":"c","response":{"status_code":400,"request_id":"req_X","body":{"error":{"code":"bad"}}},"error":null}
`
		if got != want {
			t.Errorf("%s: errors: got\n%s\nwant\n%s", when, got, want)
		}
	}
	check("ended")
	b = r.settled(run, b.ID)
	check("settled")
	if left, err := r.s.Lines(t.Context(), b.ID, 0, 9); err != nil || len(left) != 2 || left[0].CustomID != "b" {
		t.Errorf("lines left: got %+v, %v, want those that can be tried again", left, err)
	}
}

// scrub hides the ids that differ from run to run.
func scrub(s string) string {
	parts := strings.Split(s, `"req_`)
	for i := range parts[1:] {
		parts[i+1] = "X" + parts[i+1][32:]
	}
	return strings.Join(parts, `"req_`)
}

// TestFilesWhileItRuns: what has ended is in the files at once.
func TestFilesWhileItRuns(t *testing.T) {
	r := newRig(t)
	run := r.runner(r.s, quick())
	b := r.batch(r.upload(lines(2) + line("bad", "refuse") + "\n" + lines2(3, 5)))
	for r.get(b.ID).Line < 6 {
		run.once(t.Context())
	}
	b = r.get(b.ID)
	if out, err := r.s.File(t.Context(), tenant, b.Output); err != nil || out.State != store.Growing || out.Batch != b.ID || out.Purpose != "batch_output" {
		t.Errorf("output: got %+v, %v", out, err)
	}
	if got := r.now(b, false); got != "" {
		t.Errorf("output: got %q", got)
	}
	if got := r.ids(r.now(b, true)); !reflect.DeepEqual(got, []string{"bad"}) {
		t.Errorf("errors: got %v", got)
	}
	r.work()
	b = r.get(b.ID)
	want := r.now(b, false)
	if got := r.ids(want); len(got) != 5 || b.Completed != 5 || b.Failed != 1 {
		t.Errorf("output: got %v, counts %d, %d", got, b.Completed, b.Failed)
	}
	b = r.until(run, b.ID, store.BatchCompleted)
	if got := r.content(b.Output); got != want {
		t.Errorf("output at the end: got\n%s\nwant what was there before\n%s", got, want)
	}
	b = r.settled(run, b.ID)
	if err := (Outputs{Store: r.s, Failure: failure}).Write(t.Context(), b, false, func([]byte) error { return nil }); err == nil {
		t.Error("lines of a settled batch: got no error, want one: some are gone")
	}
}

// lines2 are lines from one number to another.
func lines2(from, to int) string {
	all := strings.SplitAfter(lines(to), "\n")
	return strings.Join(all[from-1:], "")
}

func TestValidation(t *testing.T) {
	good := line("good", "1")
	for name, c := range map[string]struct {
		input string
		want  []string // "line code param"
	}{
		"empty":         {"\n \n", []string{"0 empty_file "}},
		"no JSON":       {good + "\nnope\n", []string{"2 invalid_json_line "}},
		"two values":    {good + " " + good + "\n", []string{"1 invalid_json_line "}},
		"array":         {"[]\n" + good, []string{"1 invalid_json_line "}},
		"not UTF-8":     {"{\"custom_id\":\"\xff\"}\n", []string{"1 invalid_json_line "}},
		"no id":         {strings.Replace(good, `"custom_id":"good",`, "", 1), []string{"1 missing_required_parameter custom_id"}},
		"empty id":      {line("", "1"), []string{"1 missing_required_parameter custom_id"}},
		"id of NUL":     {strings.Replace(good, `"good"`, `"\u0000"`, 1), []string{"1 invalid_value custom_id"}},
		"long id":       {line(strings.Repeat("x", 513), "1"), []string{"1 invalid_value custom_id"}},
		"id a number":   {strings.Replace(good, `"good"`, "7", 1), []string{"1 invalid_json_line "}},
		"no method":     {strings.Replace(good, `"method":"POST",`, "", 1), []string{"1 missing_required_parameter method"}},
		"GET":           {strings.Replace(good, "POST", "GET", 1), []string{"1 invalid_method method"}},
		"other url":     {strings.Replace(good, "chat/completions", "responses", 1), []string{"1 mismatched_url url"}},
		"no body":       {strings.Replace(good, `"body":{`, `"other":{`, 1), []string{"1 missing_required_parameter body"}},
		"no model":      {strings.Replace(good, `"model":"m1"`, `"x":1`, 1), []string{"1 missing_required_parameter body.model"}},
		"model of 1":    {strings.Replace(good, `"m1"`, `1`, 1), []string{"1 invalid_type body"}},
		"unknown model": {strings.Replace(good, `"m1"`, `"unknown"`, 1), []string{"1 model_not_found body.model"}},
		"streamed":      {strings.Replace(good, `"ask"`, `"stream":true,"ask"`, 1), []string{"1 unsupported_parameter body.stream"}},
		"duplicate":     {good + "\n" + good, []string{"2 duplicate_custom_id custom_id"}},
		"late duplicate": {lines(7) + line("c2", "x") + "\n" + lines2(8, 9) + line("c9", "x") + "\n" + line("x", ""), []string{
			"8 duplicate_custom_id custom_id", "11 duplicate_custom_id custom_id",
		}},
		"several": {"x\n" + good + "\n{}\n" + good, []string{"1 invalid_json_line ", "3 missing_required_parameter custom_id", "4 duplicate_custom_id custom_id"}},
		"long":    {good + "\n" + line("a", strings.Repeat("x", 1000)) + "\n" + line("b", "1"), []string{"2 line_too_long "}},
		"capped": {strings.Repeat("x\n", 50), []string{
			"1 invalid_json_line ", "2 invalid_json_line ", "3 invalid_json_line ", "4 invalid_json_line ", "5 invalid_json_line ",
		}},
		"too many": {lines(21), []string{"0 too_many_requests "}},
		"as many":  {lines(20), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			run := r.runner(r.s, quick(func(o *Options) { o.MaxLine, o.MaxFaults, o.MaxLines = 700, 5, 20 }))
			b := r.batch(r.upload(c.input))
			if c.want == nil {
				r.until(run, b.ID, store.BatchCompleted)
				return
			}
			b = r.until(run, b.ID, store.BatchFailed)
			var faults []Fault
			if err := json.Unmarshal(b.Faults, &faults); err != nil {
				t.Fatalf("faults %q: %v", b.Faults, err)
			}
			var got []string
			for _, f := range faults {
				line, param := 0, ""
				if f.Line != nil {
					line = *f.Line
				}
				if f.Param != nil {
					param = *f.Param
				}
				if f.Message == "" {
					t.Errorf("%+v has no message", f)
				}
				got = append(got, fmt.Sprint(line, " ", f.Code, " ", param))
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if !b.Settled || b.Total != 0 || b.Output != (queue.ID{}) {
				t.Errorf("got %+v", b)
			}
			if open, err := r.s.OpenLines(t.Context(), b.ID); err != nil || open {
				t.Errorf("a batch that is not valid has requests: %t, %v", open, err)
			}
		})
	}
}
