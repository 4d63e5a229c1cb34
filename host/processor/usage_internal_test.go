package processor

import (
	"encoding/json"
	"testing"
)

func TestWithUsage(t *testing.T) {
	for _, tc := range []struct {
		name, body, want string
		wanted           bool
	}{
		{"not said", `{ "z":1, "model":"m", "stream":true}`, `{"stream_options":{"include_usage":true}, "z":1, "model":"m", "stream":true}`, false},
		{"null", `{"stream_options":null,"a":"é\u00e9"}`, `{"stream_options":{"include_usage":true},"a":"é\u00e9"}`, false},
		{"other options", `{"stream_options":{"include_obfuscation":false}}`, `{"stream_options":{"include_usage":true,"include_obfuscation":false}}`, false},
		{"no options", `{"stream_options":{ }}`, `{"stream_options":{"include_usage":true }}`, false},
		{"refused", `{"stream_options":{"include_usage":false,"x":1},"y":[ ]}`, `{"stream_options":{"include_usage":true,"x":1},"y":[ ]}`, false},
		{"asked for", `{"stream_options":{"include_usage":true}}`, `{"stream_options":{"include_usage":true}}`, true},
		{"nonsense", `{"stream_options":7}`, `{"stream_options":7}`, true},
		{"no object", `[1]`, `[1]`, true},
		{"empty", `{}`, `{"stream_options":{"include_usage":true}}`, false},
	} {
		got, wanted := withUsage([]byte(tc.body))
		if string(got) != tc.want || wanted != tc.wanted {
			t.Errorf("%s: got %s %v, want %s %v", tc.name, got, wanted, tc.want, tc.wanted)
		}
	}
}

func TestAsChunks(t *testing.T) {
	const whole = `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"a"},{"id":"b","index":7}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1},"z":[1.0]}`
	const chunk = `{"choices":[{"delta":{"content":null,"tool_calls":[{"id":"a","index":0},{"id":"b","index":7}]},"finish_reason":"tool_calls","index":0}],"id":"c","object":"chat.completion.chunk","z":[1.0]}`
	const usage = `{"choices":[],"id":"c","object":"chat.completion.chunk","usage":{"prompt_tokens":1},"z":[1.0]}`
	if got := asChunks([]byte(whole), false); len(got) != 1 || string(got[0]) != chunk {
		t.Errorf("got %s, want %s", got, chunk)
	}
	if got := asChunks([]byte(whole), true); len(got) != 2 || string(got[0]) != chunk || string(got[1]) != usage {
		t.Errorf("got %s, want %s and %s", got, chunk, usage)
	}
	if got := asChunks([]byte(`{"choices":[null]}`), true); len(got) != 1 {
		t.Errorf("got %s", got)
	}
}

// FuzzWithUsage: a body stays one that asks for what it asked for, and the usage.
func FuzzWithUsage(f *testing.F) {
	for _, s := range []string{`{"stream":true}`, `{"stream_options":{"include_usage":null}}`, ` {"stream_options":{}} `, `{"stream_options":{},"stream_options":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return
		}
		out, wanted := withUsage(body)
		if wanted {
			if string(out) != string(body) {
				t.Errorf("%q became %q", body, out)
			}
			return
		}
		var was, is map[string]json.RawMessage
		if json.Unmarshal(body, &was) != nil || json.Unmarshal(out, &is) != nil {
			t.Fatalf("%q became %q", body, out)
		}
		var options map[string]any
		if json.Unmarshal(is["stream_options"], &options) != nil || options["include_usage"] != true {
			t.Errorf("%q became %q", body, out)
		}
		for k, v := range was {
			if k != "stream_options" && string(v) != string(is[k]) {
				t.Errorf("%q became %q", body, out)
			}
		}
	})
}
