package endtoend_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// frame is one event of a stream as it came over the wire.
type frame struct {
	Seq  int64
	Type string
	Data string
}

// viewer reads the stream of one response as a client does.
type viewer struct {
	*testing.T
	frames []frame // heartbeats left out
	res    *http.Response
	lines  *bufio.Reader
	done   bool // [DONE] came
}

// watch opens the stream of a response on h, after sequence number after; -1:
// from the first event, without the parameter.
func (h *host) watch(t *testing.T, id string, after int64) *viewer {
	t.Helper()
	url := h.url + "/v1/responses/" + id + "?stream=true"
	if after >= 0 {
		url += fmt.Sprint("&starting_after=", after)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, req)
}

// ask posts a request for a stream.
func (h *host) ask(t *testing.T, body map[string]any) *viewer {
	t.Helper()
	body["stream"] = true
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/v1/responses", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, req)
}

func open(t *testing.T, req *http.Request) *viewer {
	t.Helper()
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(res.Body) // for the message
		t.Fatalf("%s %s: %d %s", req.Method, req.URL, res.StatusCode, data)
	}
	return &viewer{T: t, res: res, lines: bufio.NewReader(res.Body)}
}

// next reads one event; false when the stream has ended or broke.
func (v *viewer) next() bool {
	v.Helper()
	kind := ""
	for {
		line, err := v.lines.ReadString('\n')
		if err != nil {
			return false
		}
		line = strings.TrimSuffix(line, "\n")
		if k, ok := strings.CutPrefix(line, "event: "); ok {
			kind = k
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if data == "[DONE]" {
			v.done = true
			continue
		}
		if !ok {
			continue
		}
		var e struct {
			Type string `json:"type"`
			Seq  int64  `json:"sequence_number"`
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Type != kind {
			v.Errorf("event %q: %v: %s", kind, err, data)
		}
		if n := len(v.frames); n > 0 && e.Seq <= v.frames[n-1].Seq {
			continue // a heartbeat
		}
		v.frames = append(v.frames, frame{e.Seq, e.Type, data})
		return true
	}
}

// until reads up to an event of the type.
func (v *viewer) until(kind string) {
	v.Helper()
	for v.next() {
		if v.frames[len(v.frames)-1].Type == kind {
			return
		}
	}
	v.Fatalf("the stream ended before %s: %v", kind, v.frames)
}

// rest reads to the end.
func (v *viewer) rest() {
	for v.next() {
		continue
	}
}

// last is the number of the last event seen, -1 for none.
func (v *viewer) last() int64 {
	if len(v.frames) == 0 {
		return -1
	}
	return v.frames[len(v.frames)-1].Seq
}

// leave breaks the connection off.
func (v *viewer) leave() { _ = v.res.Body.Close() }

// id is the id of the response.
func (v *viewer) id() string {
	v.Helper()
	var e struct {
		Response struct{ ID string }
	}
	if len(v.frames) == 0 || json.Unmarshal([]byte(v.frames[0].Data), &e) != nil || e.Response.ID == "" {
		v.Fatalf("no response in the first of %d events", len(v.frames))
	}
	return e.Response.ID
}

// checkWhole checks that frames are one whole stream, with contiguous numbers
// from 0 and one terminal event, and that this event tells what GET tells.
func checkWhole(t *testing.T, h *host, id string, frames []frame) {
	t.Helper()
	var v response.Validator
	for i, f := range frames {
		if f.Seq != int64(i) {
			t.Fatalf("event %d has number %d", i, f.Seq)
		}
		if err := v.Event([]byte(f.Data)); err != nil {
			t.Fatalf("%v in %s", err, f.Data)
		}
	}
	if err := v.End(); err != nil {
		t.Fatal(err)
	}
	var last struct{ Response json.RawMessage }
	if err := json.Unmarshal([]byte(frames[len(frames)-1].Data), &last); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/v1/responses/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, last.Response) {
		t.Errorf("GET tells %s, %v; the last event told %s", got, err, last.Response)
	}
}

// checkTail checks that two streams are the same from there on, byte for byte.
func checkTail(t *testing.T, what string, got, want []frame) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d events, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: event %d is\n%s\nwant\n%s", what, i, got[i].Data, want[i].Data)
			return
		}
	}
}
