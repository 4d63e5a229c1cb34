package guest

import "testing"

func TestReadResult(t *testing.T) {
	for _, tt := range []struct {
		output, want string
		fails        bool
	}{
		{`{"v":1,"output":"text"}`, "text", false},
		{`{"v":1,"output":{"a": 1}}`, `{"a": 1}`, false},
		{`{"v":1,"output":null}`, "null", false},
		{`{"v":1,"output":0}`, "0", false},
		{`{"v":1,"output":""}`, "", false},
		{`{"v":1,"content":[{"type":"text"}]}`, `[{"type":"text"}]`, false},
		{`{"v":1}`, "", true},
		{`{"v":2,"output":"text"}`, "", true},
		{`[]`, "", true},
	} {
		got, _, err := readResult([]byte(tt.output))
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: got %q, %v; want %q", tt.output, got, err, tt.want)
		}
	}
}
