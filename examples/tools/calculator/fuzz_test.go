package main

import (
	"encoding/json"
	"testing"
)

func FuzzEvaluate(f *testing.F) {
	for _, seed := range []string{"6*7", "-2^-2", "(1+2)/3", "1e1000*2", "5.5%2", "2**0.5", ".5e-3", "1/3", "((", "--+1", "9^9^9", "½"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		value, err := evaluate(expression)
		if err != nil {
			return
		}
		text := format(value)
		if !json.Valid([]byte(text)) {
			t.Fatalf("%q: %s is not a JSON number", expression, text)
		}
		if len(text) > maxLength {
			return // a large whole number, longer than an expression may be
		}
		again, err := evaluate("0+(" + text + ")")
		if len(text)+4 > maxLength {
			return
		}
		if err != nil {
			t.Fatalf("%q: %s cannot be read again: %v", expression, text, err)
		}
		if value.IsInt() && again.Cmp(value) != 0 {
			t.Errorf("%q: %s is read as %s", expression, text, again)
		}
	})
}
