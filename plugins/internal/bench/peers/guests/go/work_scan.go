//go:build wasip1 && !json

package main

import "strconv"

const name = "bench-go"

// total adds the numbers in a text.
func total(text []byte) (uint64, error) {
	var sum, number uint64
	for _, c := range text {
		if c >= '0' && c <= '9' {
			number = number*10 + uint64(c-'0')
			continue
		}
		sum += number
		number = 0
	}
	return sum + number, nil
}

func encode(v uint64) ([]byte, error) {
	b := append(make([]byte, 0, 40), `{"v":1,"output":`...)
	return append(strconv.AppendUint(b, v, 10), '}'), nil
}
