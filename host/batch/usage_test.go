package batch

import (
	"encoding/json"
	"testing"
)

func TestTokens(t *testing.T) {
	var sum tokens
	for _, answer := range []string{
		`{"usage":{"input_tokens":1,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":3}}`,
		`{"usage":{"prompt_tokens":10,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":6}}}`,
		`{"usage":{"prompt_tokens":100,"total_tokens":100}}`,
		`{"usage":null}`, `{"usage":"none"}`, `[]`, ``, `"text"`,
	} {
		sum.add([]byte(answer))
	}
	got, err := json.Marshal(sum)
	const want = `{"input_tokens":111,"input_tokens_details":{"cached_tokens":6},"output_tokens":22,"output_tokens_details":{"reasoning_tokens":8},"total_tokens":133}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}
