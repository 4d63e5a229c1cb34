package response_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

func itemsOf(t *testing.T, list string) []response.Item {
	t.Helper()
	var items []response.Item
	if err := json.Unmarshal([]byte("["+list+"]"), &items); err != nil {
		t.Fatal(err)
	}
	return items
}

func TestNameItems(t *testing.T) {
	own := "msg_" + simID.String() + "_i1"
	items := itemsOf(t, `{"role":"user","content":"a"},{"role":"user","content":"b"},{"id":"`+own+`","type":"message","role":"user","content":"c"},
		{"type":"function_call","id":"fc_9","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"<o>"},
		{"type":"reasoning","id":null,"summary":[]},{"type":"acme:thing"},{"id":"fc_9","type":"function_call","call_id":"d","name":"f","arguments":"{}"}`)
	named := response.NameItems(items, simID)
	var ids []string
	for i, it := range named {
		ids = append(ids, strings.Replace(it.ID, simID.String(), "R", 1))
		var raw struct{ ID, Type string }
		if err := json.Unmarshal(it.Raw, &raw); err != nil || raw.ID != it.ID || it.Type != items[i].Type || raw.Type != it.Type {
			t.Errorf("item %d: got %s (%v), want the id and type %q", i, it.Raw, err, it.Type)
		}
	}
	want := []string{"msg_R_i0", "msg_R_i1i", "msg_R_i1", "fc_9", "fco_R_i4", "rs_R_i5", "item_R_i6", "fc_R_i7"}
	if !slices.Equal(ids, want) {
		t.Errorf("ids: got %v, want %v", ids, want)
	}
	if !strings.Contains(string(named[4].Raw), `"output":"<o>"`) || items[0].ID != "" {
		t.Errorf("got %s, and the items that were given: %+v", named[4].Raw, items[0])
	}
	for _, it := range named[:2] {
		if id, ok := response.ItemResponse(strings.TrimSuffix(it.ID, "i")); !ok || id != simID {
			t.Errorf("ItemResponse(%s): got %s %v", it.ID, id, ok)
		}
	}
}

func TestItemResponse(t *testing.T) {
	hex := simID.String()
	for id, ok := range map[string]bool{
		"msg_" + hex + "_0": true, "msg_" + hex + "_i12": true, "mcp_" + hex + "_3": true,
		"msg_" + hex: false, "msg_" + hex + "_x": false, "msg_" + hex[1:] + "_0": false, "msg_abc": false, "": false, "__": false,
	} {
		got, found := response.ItemResponse(id)
		if found != ok || ok && got != simID {
			t.Errorf("ItemResponse(%q): got %s %v, want %v", id, got, found, ok)
		}
	}
}

func TestCheckOutputs(t *testing.T) {
	call := `{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}`
	out := `{"type":"function_call_output","call_id":"c","output":"x"}`
	custom := `{"type":"custom_tool_call","call_id":"c","name":"f","input":"x"}`
	customOut := `{"type":"custom_tool_call_output","call_id":"c","output":"x"}`
	ask := `{"type":"mcp_approval_request","id":"mcpr_1","server_label":"l","name":"n","arguments":"{}"}`
	answer := `{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":true}`
	say := `{"role":"user","content":"x"}`
	for _, tc := range []struct {
		name, context, input string
		ok                   bool
	}{
		{"call and output", ``, call + "," + out, true},
		{"output of an ancestor's call", call, out, true},
		{"output without call", ``, out, false},
		{"output before its call", ``, out + "," + call, false},
		{"two outputs of one call", call, out + "," + out, false},
		{"call without output", ``, call, false},
		{"ancestor's call without output", call, say, false},
		{"incomplete call", `{"type":"function_call","call_id":"c","name":"f","arguments":"{","status":"incomplete"}`, say, true},
		{"custom call and output", ``, custom + "," + customOut, true},
		{"custom output of a function's call", ``, call + "," + customOut, false},
		{"custom call without output", custom, say, false},
		{"answer to an ancestor's question", ask, answer, true},
		{"answer without question", ``, answer, false},
		{"answer before its question", ``, answer + "," + ask, false},
		{"two answers", ask, answer + "," + answer, false},
		{"answered before", ask + "," + answer, answer, false},
		{"question without answer", ask, say, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := briefOf(t, `{"model":"m","input":[`+tc.input+`]}`)
			j.Context = itemsOf(t, tc.context)
			err := response.CheckOutputs(j)
			var bad *response.BadRequest
			if tc.ok != (err == nil) || err != nil && (!errors.As(err, &bad) || bad.Param != "input") {
				t.Errorf("got %v, want ok %v", err, tc.ok)
			}
		})
	}
}

// one counts each item that a model is shown as one token.
func one(it response.Item) int {
	if it.Type == "mcp_list_tools" {
		return 0
	}
	return 1
}

func TestFit(t *testing.T) {
	const context = `{"id":"sys","role":"system","content":"s"},{"id":"u1","role":"user","content":"1"},{"id":"list","type":"mcp_list_tools"},
		{"id":"call","type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"id":"a1","role":"assistant","content":"1"},
		{"id":"out","type":"function_call_output","call_id":"c","output":"x"},{"id":"cmp","type":"compaction"}`
	const input = `{"id":"dev","role":"developer","content":"d"},{"id":"u2","role":"user","content":"2"},{"id":"a2","role":"assistant","content":"2"}`
	for _, tc := range []struct {
		limit int
		kept  string
		ok    bool
	}{
		{9, "sys u1 list call a1 out cmp dev u2 a2", true},
		{8, "sys list call a1 out cmp dev u2 a2", true},
		{7, "sys list a1 cmp dev u2 a2", true}, // the call goes with its output
		{6, "sys list a1 cmp dev u2 a2", true},
		{5, "sys list cmp dev u2 a2", true},
		{4, "sys list cmp dev u2", true},
		{3, "sys list cmp dev u2", false},
		{0, "sys list cmp dev u2", false},
	} {
		j := briefOf(t, `{"model":"m","input":[`+input+`]}`)
		j.Context = itemsOf(t, context)
		ok := j.Fit(tc.limit, one)
		var kept []string
		for _, it := range j.Items() {
			kept = append(kept, it.ID)
		}
		if s := strings.Join(kept, " "); s != tc.kept || ok != tc.ok {
			t.Errorf("Fit(%d): got %v, %s, want %v, %s", tc.limit, ok, s, tc.ok, tc.kept)
		}
		if len(j.Context) != 7 || len(j.Request.Input) != 3 {
			t.Errorf("Fit(%d): what was sent is gone: %d, %d", tc.limit, len(j.Context), len(j.Request.Input))
		}
		b, err := j.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := response.DecodeBrief(b)
		if err != nil || !slices.Equal(again.Dropped, j.Dropped) {
			t.Errorf("Fit(%d): stored as %v, %v, want %v", tc.limit, again.Dropped, err, j.Dropped)
		}
	}
}

// Whatever is dropped, what is left can be shown: no call or output is alone,
// and the last user message is there.
func FuzzFit(f *testing.F) {
	f.Add([]byte("ucoaucodaucox"), 3)
	f.Fuzz(func(t *testing.T, kinds []byte, limit int) {
		var list []string
		calls, open := 0, 0
		for i, k := range kinds {
			switch {
			case k == 'c':
				calls++
				list = append(list, fmt.Sprintf(`{"id":"i%d","type":"function_call","call_id":"c%d","name":"f","arguments":"{}"}`, i, calls))
			case k == 'o' && open < calls:
				open++
				list = append(list, fmt.Sprintf(`{"id":"i%d","type":"function_call_output","call_id":"c%d","output":"x"}`, i, open))
			case k == 'd':
				list = append(list, fmt.Sprintf(`{"id":"i%d","role":"developer","content":"d"}`, i))
			case k == 'u':
				list = append(list, fmt.Sprintf(`{"id":"i%d","role":"user","content":"u"}`, i))
			}
		}
		for open < calls {
			open++
			list = append(list, fmt.Sprintf(`{"id":"end%d","type":"function_call_output","call_id":"c%d","output":"x"}`, open, open))
		}
		j := response.Brief{Request: &response.Request{Model: "m"}, Context: itemsOf(t, strings.Join(list, ","))}
		ok := j.Fit(limit, one)
		kept := j.Items()
		if ok != (len(kept) <= limit) {
			t.Errorf("Fit(%d): got %v with %d items", limit, ok, len(kept))
		}
		if err := response.CheckOutputs(response.Brief{Request: j.Request, Context: kept}); err != nil {
			t.Errorf("Fit(%d) of %s: %v", limit, kinds, err)
		}
		if last := strings.LastIndexByte(string(kinds), 'u'); last >= 0 {
			if !hasItem(kept, fmt.Sprintf("i%d", last)) {
				t.Errorf("Fit(%d) of %s: the last user message is gone", limit, kinds)
			}
		}
		for i, k := range kinds {
			if k == 'd' && !hasItem(kept, fmt.Sprintf("i%d", i)) {
				t.Errorf("Fit(%d) of %s: a developer message is gone", limit, kinds)
			}
		}
	})
}

// hasItem reports whether there is an item with an id that is no reference.
func hasItem(items []response.Item, id string) bool {
	return slices.ContainsFunc(items, func(it response.Item) bool { return it.ID == id && !it.References() })
}

func TestOutputItems(t *testing.T) {
	items, err := response.OutputItems([]byte(`{"output":[{"id":"a","type":"reasoning"}]}`))
	if err != nil || len(items) != 1 || items[0].ID != "a" {
		t.Errorf("got %+v, %v", items, err)
	}
	if _, err := response.OutputItems([]byte(`{"output":7}`)); err == nil {
		t.Error("no list: got no error")
	}
}
