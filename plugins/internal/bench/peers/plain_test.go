package main

import "testing"

// TestAnswer has the native function do what the guests do.
func TestAnswer(t *testing.T) {
	for in, want := range map[string]string{smallInput: smallOutput, `"abc"`: `"abc"`} {
		got, err := answer([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("answer(%s): got %s, want %s", in, got, want)
		}
	}
	if _, err := answer([]byte("{")); err == nil {
		t.Error("half an object: got no error")
	}
}
