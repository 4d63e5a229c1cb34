package engine_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// specValue is an argument or an expected result of a script.
type specValue struct {
	Type  string          `json:"type"`
	Lane  string          `json:"lane_type"` // of a v128
	Value json.RawMessage `json:"value"`     // absent: any
}

// texts returns the lanes of v as the script writes them; a value that is no
// vector has one.
func (v specValue) texts() []string {
	var one string
	if json.Unmarshal(v.Value, &one) == nil {
		return []string{one}
	}
	var lanes []string
	if err := json.Unmarshal(v.Value, &lanes); err != nil {
		panic(fmt.Sprintf("value %s: %v", v.Value, err))
	}
	return lanes
}

// width returns the bits of a lane of v.
func (v specValue) width() int {
	kind := v.Type
	if kind == "v128" {
		kind = v.Lane
	}
	switch kind {
	case "i8":
		return 8
	case "i16":
		return 16
	case "i32", "f32":
		return 32
	}
	return 64 // references too
}

// words returns how many words wazero passes for v.
func (v specValue) words() int {
	if v.Type == "v128" {
		return 2
	}
	return 1
}

// bits returns v as wazero takes it.
func (v specValue) bits() []uint64 {
	out := make([]uint64, v.words())
	for i, text := range v.texts() {
		at := i * v.width()
		out[at/64] |= v.lane(text) << (at % 64)
	}
	return out
}

// lane parses one lane. A reference n is n + 1, for wazero's null is 0.
func (v specValue) lane(text string) uint64 {
	if text == "null" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		signed, err := strconv.ParseInt(text, 10, v.width())
		if err != nil {
			panic(err)
		}
		n = uint64(signed) & (math.MaxUint64 >> (64 - v.width()))
	}
	if v.Type == "externref" {
		n++
	}
	return n
}

// matches reports whether got, of v.words words, is what v asks for.
func (v specValue) matches(got []uint64) bool {
	if v.Value == nil {
		return true
	}
	width := v.width()
	for i, text := range v.texts() {
		at := i * width
		lane := got[at/64] >> (at % 64) & (math.MaxUint64 >> (64 - width))
		if !v.matchesLane(text, lane) {
			return false
		}
	}
	return true
}

func (v specValue) matchesLane(text string, got uint64) bool {
	quiet, sign := uint64(0x7ff8)<<48, uint64(1)<<63
	if v.width() == 32 {
		quiet, sign = 0x7fc0_0000, 1<<31
	}
	switch text {
	case "nan:canonical":
		return got&^sign == quiet
	case "nan:arithmetic":
		return got&quiet == quiet
	}
	return got == v.lane(text)
}

// matchAll reports whether got are the results that want asks for.
func matchAll(want []specValue, got []uint64) bool {
	for _, v := range want {
		if len(got) < v.words() || !v.matches(got[:v.words()]) {
			return false
		}
		got = got[v.words():]
	}
	return len(got) == 0
}

func allBits(values []specValue) []uint64 {
	var words [][]uint64
	for _, v := range values {
		words = append(words, v.bits())
	}
	return slices.Concat(words...)
}
