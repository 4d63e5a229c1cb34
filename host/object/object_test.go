package object_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casemate/casemate/host/object"
)

func TestMembers(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{}`, ""},
		{` { } `, ""},
		{`{"a":1}`, "a=1"},
		{"{ \"a\" :\t[1, {\"b\":\"}\"}] ,\r\n\"c\":null , \"d\" : \"\\\\\" }", `a=[1, {"b":"}"}] c=null d="\\"`},
		{`{"a":1,"a":{"x":2}}`, `a=1 a={"x":2}`},
		{`{"mod\u0065l":"x"}`, `model="x"`},
		{`{"a":"\"","b":"\\\"\\","c":""}`, `a="\"" b="\\\"\\" c=""`},
		{`{"":-1.5e9}`, "=-1.5e9"},
	} {
		var got []string
		for k, at := range object.Members([]byte(tc.in)) {
			got = append(got, fmt.Sprintf("%s=%s", k, tc.in[at.Start:at.End]))
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: got %s, want %s", tc.in, s, tc.want)
		}
	}
	if got := object.Value([]byte(`{"a":1,"b":3,"a":2}`), "a"); string(got) != "2" {
		t.Errorf("got %s, want the last one", got)
	}
	if got := object.Value([]byte(`{"b":{"a":1}}`), "a"); got != nil {
		t.Errorf("got %s of another object", got)
	}
	for in, want := range map[string]bool{`{"a":1}`: true, " \n{}": true, `[]`: false, ``: false, `{`: false, `{}{}`: false} {
		if got := object.Valid([]byte(in)); got != want {
			t.Errorf("%s: got %t, want %t", in, got, want)
		}
	}
}

// FuzzMembers holds what is found in an object against what is decoded of it.
func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"}"]},"model":"x","c":-1e5,"d":true}`))
	f.Add([]byte(`{"mod\u0065l" : [ ] , "\ud800":"\\\""}`))
	f.Add([]byte(`{"a`))
	f.Add([]byte(`{"a":}]"`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := map[string]json.RawMessage{}
		for k, at := range object.Members(in) { // of what is no object it must end, and not panic
			got[string(k)] = json.RawMessage(in[at.Start:at.End])
		}
		var want map[string]json.RawMessage
		if !utf8.Valid(in) || !object.Valid(in) || json.Unmarshal(in, &want) != nil {
			return
		}
		if !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Fatalf("%s: got %s, want %s", in, got, want)
		}
	})
}
