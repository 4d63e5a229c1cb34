package response_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

func TestItemsRefused(t *testing.T) {
	part := func(p string) string { return `{"role":"user","content":[{"type":"input_text","text":"a"},` + p + `]}` }
	long := strings.Repeat("i", 129)
	for _, tc := range []refusal{
		{"no object", `"x"`, "input[0]", "invalid_type"},
		{"type no string", `{"type":5}`, "input[0].type", "invalid_type"},
		{"NUL in id", `{"type":"reasoning","id":"\u0000"}`, "input[0].id", "invalid_value"},
		{"long id", `{"role":"user","content":"x","id":"` + long + `"}`, "input[0].id", "string_above_max_length"},
		{"message without role", `{"content":"x"}`, "input[0].role", "missing_required_parameter"},
		{"unknown role", `{"role":"tool","content":"x"}`, "input[0].role", "invalid_value"},
		{"message without content", `{"role":"user"}`, "input[0].content", "missing_required_parameter"},
		{"content of another type", `{"role":"user","content":{}}`, "input[0].content", "invalid_type"},
		{"NUL in a name", `{"role":"user","name":"\u0000","content":"x"}`, "input[0].name", "invalid_value"},
		{"part no object", part(`"x"`), "input[0].content[1]", "invalid_type"},
		{"part without type", part(`{"text":"x"}`), "input[0].content[1].type", "missing_required_parameter"},
		{"part of unknown type", part(`{"type":"input_video"}`), "input[0].content[1]", "unsupported_value"},
		{"text part without text", part(`{"type":"input_text"}`), "input[0].content[1].text", "missing_required_parameter"},
		{"text of another type", part(`{"type":"output_text","text":1}`), "input[0].content[1].text", "invalid_type"},
		{"refusal", part(`{"type":"refusal","text":"x"}`), "input[0].content[1].refusal", "missing_required_parameter"},
		{"image without image", part(`{"type":"input_image","detail":"low"}`), "input[0].content[1]", "missing_required_parameter"},
		{"image detail", part(`{"type":"input_image","image_url":"https://x","detail":"all"}`), "input[0].content[1].detail", "invalid_value"},
		{"image url of another type", part(`{"type":"input_image","image_url":{"url":"x"}}`), "input[0].content[1].image_url", "invalid_type"},
		{"chat image", part(`{"type":"image_url","image_url":{"url":1}}`), "input[0].content[1].image_url.url", "invalid_type"},
		{"file without file", part(`{"type":"input_file","filename":"x"}`), "input[0].content[1]", "missing_required_parameter"},
		{"NUL in file_id", part(`{"type":"input_file","file_id":"\u0000"}`), "input[0].content[1].file_id", "invalid_value"},
		{"audio without audio", part(`{"type":"input_audio"}`), "input[0].content[1].input_audio", "missing_required_parameter"},
		{"audio format", part(`{"type":"input_audio","input_audio":{"data":"x"}}`), "input[0].content[1].input_audio.format", "missing_required_parameter"},
		{"call without call_id", `{"type":"function_call","name":"f","arguments":"{}"}`, "input[0].call_id", "missing_required_parameter"},
		{"call without name", `{"type":"function_call","call_id":"f","arguments":"{}"}`, "input[0].name", "missing_required_parameter"},
		{"output without call_id", `{"type":"function_call_output","output":"x"}`, "input[0].call_id", "missing_required_parameter"},
		{"NUL in call_id", `{"type":"function_call_output","call_id":"a\u0000","output":""}`, "input[0].call_id", "invalid_value"},
		{"part of an output", `{"type":"function_call_output","call_id":"c","output":[{"type":"x"}]}`, "input[0].output[0]", "unsupported_value"},
		{"custom call", `{"type":"custom_tool_call","call_id":"c","name":"n","input":{}}`, "input[0].input", "invalid_type"},
		{"custom output", `{"type":"custom_tool_call_output","output":"x"}`, "input[0].call_id", "missing_required_parameter"},
		{"reasoning summary", `{"type":"reasoning","summary":"x"}`, "input[0].summary", "invalid_type"},
		{"reasoning content", `{"type":"reasoning","summary":[],"encrypted_content":7}`, "input[0].encrypted_content", "invalid_type"},
		{"receipt without label", `{"type":"mcp_call","id":"i","name":"n"}`, "input[0].server_label", "missing_required_parameter"},
		{"list of tools", `{"type":"mcp_list_tools","server_label":"l","tools":{}}`, "input[0].tools", "invalid_type"},
		{"approval request without id", `{"type":"mcp_approval_request","name":"n","server_label":"l","arguments":"{}"}`, "input[0].id", "missing_required_parameter"},
		{"approval of nothing", `{"type":"mcp_approval_response","approve":true}`, "input[0].approval_request_id", "missing_required_parameter"},
		{"approval without answer", `{"type":"mcp_approval_response","approval_request_id":"i"}`, "input[0].approve", "missing_required_parameter"},
		{"approval of another type", `{"type":"mcp_approval_response","approval_request_id":"i","approve":"yes"}`, "input[0].approve", "invalid_type"},
		{"reference to nothing", `{"type":"item_reference"}`, "input[0].id", "missing_required_parameter"},
		{"compaction of nothing", `{"type":"compaction"}`, "input[0].encrypted_content", "missing_required_parameter"},
		{"foreign compaction", `{"type":"compaction","encrypted_content":"gAAAAAB"}`, "input[0].encrypted_content", "unsupported_value"},
	} {
		tc.body = `{"model":"m","input":[` + tc.body + `]}`
		t.Run(tc.name, tc.check)
	}
}

func TestItemsAccepted(t *testing.T) {
	for name, item := range map[string]string{
		"hosted tool's receipt":       `{"type":"web_search_call","id":"ws_1","status":"completed"}`,
		"extension":                   `{"type":"acme:thing","id":"x"}`,
		"message of an assistant":     `{"type":"message","id":"m","role":"assistant","phase":"commentary","status":"completed","content":[{"type":"output_text","text":"a","annotations":[]},{"type":"refusal","refusal":"no"}]}`,
		"nothing said":                `{"role":"assistant","content":null}`,
		"image":                       `{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AA==","detail":"auto"}]}`,
		"file by id":                  `{"role":"user","content":[{"type":"input_file","file_id":"file_1"}]}`,
		"file by address":             `{"role":"user","content":[{"type":"input_file","file_url":"https://x/y.pdf"}]}`,
		"audio":                       `{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}`,
		"output that is an object":    `{"type":"function_call_output","id":"fco_1","call_id":"c","output":{"n":1}}`,
		"arguments that are none":     `{"type":"function_call","call_id":"c","name":"f","arguments":null}`,
		"reasoning":                   `{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"s"}],"content":null,"encrypted_content":null}`,
		"receipt":                     `{"type":"mcp_call","id":"mcp_1","server_label":"l","name":"n","arguments":"{}","output":"o","error":null}`,
		"list of tools":               `{"type":"mcp_list_tools","id":"mcpl_1","server_label":"l","tools":[{"name":"n","input_schema":{}}]}`,
		"approval":                    `{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":false,"reason":"no"}`,
		"reference":                   `{"type":"item_reference","id":"msg_1"}`,
		"reference without its type":  `{"id":"msg_1"}`,
		"reference with a null type":  `{"type":null,"id":"msg_1"}`,
		"compaction":                  `{"type":"compaction","encrypted_content":"` + response.Compaction("what was said") + `"}`,
		"call of another tool's call": `{"type":"custom_tool_call","id":"ctc_1","call_id":"c","name":"n","input":"x"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := response.ParseRequest([]byte(`{"model":"m","input":[` + item + `]}`))
			if err != nil {
				t.Fatalf("ParseRequest: %v", err)
			}
			if got := r.Input[0].References(); got != strings.HasPrefix(name, "reference") {
				t.Errorf("References: got %v", got)
			}
		})
	}
}

func TestParseItemsNamesItsParameter(t *testing.T) {
	var bad *response.BadRequest
	_, err := response.ParseItems("items", []byte(`[{"role":"user","content":"x"},{"role":"user"}]`))
	if !errors.As(err, &bad) || bad.Param != "items[1].content" {
		t.Errorf("got %v, want items[1].content", err)
	}
	for _, raw := range []string{`"x"`, `{}`, `null`, ``, `[`} {
		if _, err := response.ParseItems("items", []byte(raw)); !errors.As(err, &bad) || bad.Param != "items" {
			t.Errorf("ParseItems(%s): got %v, want items", raw, err)
		}
	}
}

func TestCompaction(t *testing.T) {
	for _, summary := range []string{"a", "<&>\u0000 ünd \"more\"", strings.Repeat("long ", 10000)} {
		item, err := json.Marshal(map[string]string{"type": "compaction", "encrypted_content": response.Compaction(summary)})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := response.CompactionSummary(item); !ok || got != summary {
			t.Errorf("CompactionSummary: got %.40q %v, want %.40q", got, ok, summary)
		}
	}
	// {"v":1,"summary":""}, {"v":2,"summary":"a"}, {"v":1}, no JSON, no base64
	for _, content := range []string{"eyJ2IjoxLCJzdW1tYXJ5IjoiIn0", "eyJ2IjoyLCJzdW1tYXJ5IjoiYSJ9", "eyJ2IjoxfQ", "eA", "!", ""} {
		if s, ok := response.CompactionSummary([]byte(`{"encrypted_content":"casemate1.` + content + `"}`)); ok {
			t.Errorf("CompactionSummary(%s): got %q, want none", content, s)
		}
	}
}

// What is read is what was written, and nothing makes it panic.
func FuzzCompaction(f *testing.F) {
	f.Add([]byte(`{"type":"compaction","encrypted_content":"` + response.Compaction("s") + `"}`))
	f.Add([]byte(`{"encrypted_content":"casemate1.eyJ2IjoxfQ"}`))
	f.Fuzz(func(t *testing.T, item []byte) {
		summary, ok := response.CompactionSummary(item)
		if !ok {
			return
		}
		again, err := json.Marshal(map[string]string{"encrypted_content": response.Compaction(summary)})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := response.CompactionSummary(again); !ok || got != summary {
			t.Errorf("got %q %v, want %q", got, ok, summary)
		}
	})
}

func TestResolveFiles(t *testing.T) {
	var params []string
	load := func(param, id string) (response.File, error) {
		params = append(params, param+"="+id)
		if id == "none" {
			return response.File{}, errors.New("no such file")
		}
		return response.File{Name: "a.pdf", URL: "data:application/pdf;base64,AA=="}, nil
	}
	items, err := response.ParseItems("input", []byte(`[
		{"role":"user","content":[{"type":"input_text","text":"file_id"},{"type":"input_file","file_id":"f1"},{"type":"input_image","file_id":"f2","detail":"low"}]},
		{"type":"function_call_output","call_id":"c","output":[{"type":"input_file","file_id":"f3","filename":"own.pdf"}]},
		{"role":"user","content":"file_id"},{"type":"reasoning","id":"r"}]`))
	if err != nil {
		t.Fatal(err)
	}
	for i, it := range items {
		if items[i], err = response.ResolveFiles(it, "input[7]", load); err != nil {
			t.Fatal(err)
		}
	}
	got, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"content":[{"text":"file_id","type":"input_text"},{"file_data":"data:application/pdf;base64,AA==","filename":"a.pdf","type":"input_file"},` +
		`{"detail":"low","image_url":"data:application/pdf;base64,AA==","type":"input_image"}],"role":"user"},` +
		`{"call_id":"c","output":[{"file_data":"data:application/pdf;base64,AA==","filename":"own.pdf","type":"input_file"}],"type":"function_call_output"},` +
		`{"role":"user","content":"file_id"},{"type":"reasoning","id":"r"}]`
	if string(got) != want {
		t.Errorf("items:\n got %s\nwant %s", got, want)
	}
	if s := strings.Join(params, " "); s != "input[7].content[1].file_id=f1 input[7].content[2].file_id=f2 input[7].output[0].file_id=f3" {
		t.Errorf("params: got %s", s)
	}
	it := response.Item{Type: "message", Raw: []byte(`{"role":"user","content":[{"type":"input_file","file_id":"none"}]}`)}
	if _, err := response.ResolveFiles(it, "input[0]", load); err == nil {
		t.Error("a file that is not there: got no error")
	}
}
