package api

import (
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// What is small is never longer than the window.
func TestSmallFits(t *testing.T) {
	for _, text := range []string{
		"", "a", strings.Repeat("x ", 200), strings.Repeat("🦀", 100), "\\u0000\\u0001\\u0002", strings.Repeat("0", 300), strings.Repeat("ẞ漢", 50),
	} {
		body := []byte(`{"model":"m","instructions":"` + text + `","input":[{"role":"user","content":"` + text + `"},{"role":"user","content":"b"}],"tools":[{"type":"function","name":"f","description":"` + text + `"}]}`)
		req, err := response.ParseRequest(body)
		if err != nil {
			t.Fatal(err)
		}
		tool := response.ServerTool{Offer: response.Offer{Name: "n"}, Description: text, Parameters: []byte(`{"type":"object"}`)}
		turn := &turn{a: &API{}, body: body, req: req, brief: response.Brief{Request: req}, tools: []response.ServerTool{tool}}
		if n := turn.count(); turn.small(n - 1) {
			t.Errorf("%.20q: %d tokens fit into one less", text, n)
		}
		if !turn.small(1 << 20) {
			t.Errorf("%.20q: it does not fit into a million tokens", text)
		}
	}
	req, err := response.ParseRequest([]byte(`{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if turn := (&turn{a: &API{}, req: req, brief: response.Brief{Request: req}}); turn.small(1 << 30) {
		t.Error("an image is taken for its address")
	}
}

// Of a response only what is referred to is kept, and counted.
func TestReferredKeeps(t *testing.T) {
	r := referred{wanted: map[string]bool{"a": true}, found: map[queue.ID]map[string]response.Item{}}
	id := queue.NewID()
	r.keep(id, []response.Item{
		{Type: "item_reference", ID: "a", Raw: []byte("{}")},
		{Type: "message", ID: "b", Raw: []byte("{}")},
		{Type: "message", ID: "a", Raw: []byte(`{"n":1}`)},
		{Type: "message", ID: "a", Raw: []byte(`{"n":22}`)},
	})
	if got := r.found[id]; len(got) != 1 || string(got["a"].Raw) != `{"n":1}` || r.bytes != 7 {
		t.Errorf("got %v of %d bytes, want the first message a alone", got, r.bytes)
	}
}

func TestDepthIsSaid(t *testing.T) {
	if err := checkJSON([]byte(strings.Repeat("[", 10001) + strings.Repeat("]", 10001))); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("got %v, want what is wrong with it", err)
	}
}
