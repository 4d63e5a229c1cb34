//go:build wasip1 && json

package main

import "encoding/json"

const name = "bench-go-json"

// total adds the two numbers of an object.
func total(text []byte) (uint64, error) {
	var in struct {
		A uint64 `json:"a"`
		B uint64 `json:"b"`
	}
	err := json.Unmarshal(text, &in)
	return in.A + in.B, err
}

func encode(v uint64) ([]byte, error) {
	return json.Marshal(struct {
		V      int    `json:"v"`
		Output uint64 `json:"output"`
	}{1, v})
}
