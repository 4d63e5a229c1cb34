package loop_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// TestModalities checks what a policy is told that the model will have to read.
func TestModalities(t *testing.T) {
	message := func(parts string) string {
		return `{"type":"message","role":"user","content":[` + parts + `]}`
	}
	for _, tt := range []struct {
		name    string
		context []string
		input   []string
		want    string
	}{
		{"text", nil, []string{message(`{"type":"input_text","text":"input_image, input_file"}`)}, "text"},
		{"image", nil, []string{message(`{"type":"input_text","text":"x"},{"type":"input_image","image_url":"data:image/png;base64,AA=="}`)}, "text image"},
		{"of a tool", nil, []string{
			message(`{"type":"input_text","text":"x"}`), `{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}`,
			`{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}`,
		}, "text image"},
		{"of the context", []string{message(`{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}`)}, []string{message(`{"type":"input_text","text":"x"}`)}, "text audio"},
		{"a string", nil, []string{`{"type":"message","role":"user","content":"input_file"}`}, "text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, says("fine"), loop.Options{})
			r.change = func(j *response.Brief, _ *queue.New) {
				j.Context, j.Request.Input = items(t, tt.context...), items(t, tt.input...)
			}
			r.run(simple)
			if got := strings.Join(r.policy.routes[0].Request.Modalities, " "); got != tt.want {
				t.Errorf("modalities %q, want %q", got, tt.want)
			}
		})
	}
}

// TestConversation checks what a response adds to its conversation, in the write
// that ends it: all that came and that it said when it completed or was cut
// short, and nothing when it failed.
func TestConversation(t *testing.T) {
	for _, tt := range []struct {
		name string
		turn demo.Turn
		want string
	}{
		{"completed", demo.Turn{Text: "fine"}, "msg_in message"},
		{"incomplete", demo.Turn{Text: "half", Finish: "length"}, "msg_in message"},
		{"failed", demo.Turn{Status: 400}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(int, demo.Request) demo.Turn { return tt.turn }, loop.Options{})
			conversation := store.Conversation{ID: queue.NewID(), Tenant: "t", Metadata: []byte("{}")}
			if err := r.store.CreateConversation(t.Context(), conversation, nil); err != nil {
				t.Fatal(err)
			}
			r.change = func(j *response.Brief, _ *queue.New) {
				j.Conversation = conversation.ID.String()
				j.Request.Input = items(t, `{"type":"message","id":"msg_in","role":"user","content":"hello"}`)
			}
			n, events := r.brief(simple)
			run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events, Join: &store.Join{Conversation: conversation.ID}})
			if err != nil {
				t.Fatal(err)
			}
			o, err := run.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := r.store.Items(t.Context(), "t", conversation.ID, store.Page{Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, it := range got {
				if strings.Contains(string(o.Body), it.ID) && strings.Contains(string(it.Data), `"role":"assistant"`) {
					ids = append(ids, "message") // under the id that the response has it
					continue
				}
				ids = append(ids, it.ID)
			}
			slices.Sort(ids)
			want := strings.Fields(tt.want)
			slices.Sort(want)
			if !slices.Equal(ids, want) {
				t.Errorf("%s: appended %q, want %q", o.To, ids, want)
			}
		})
	}
}
