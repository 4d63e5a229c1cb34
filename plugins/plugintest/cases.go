package plugintest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// ToolCase is one expected call: output, or error with a part of its text.
// Cases are made in order, each in the state that those before it left.
type ToolCase struct {
	Name           string          `json:"name"`
	Tool           string          `json:"tool"`
	IdempotencyKey string          `json:"idempotency_key"`
	Arguments      json.RawMessage `json:"arguments"`
	Output         json.RawMessage `json:"output"`
	Error          string          `json:"error"` // a fail code, or the class of another failure
	Text           string          `json:"text"`
}

// PolicyCase is one row of a decision table.
type PolicyCase struct {
	Name     string          `json:"name"`
	Question json.RawMessage `json:"question"`
	Answer   json.RawMessage `json:"answer"`
}

// Cases are what a file of expectations holds: the one or the other.
type Cases struct {
	Calls     []ToolCase
	Decisions []PolicyCase
}

// ParseCases reads a JSON array of objects, at least one: ToolCase where they
// name a tool, PolicyCase where they have a question.
func ParseCases(data []byte) (Cases, error) {
	var kinds []struct {
		Tool     string          `json:"tool"`
		Question json.RawMessage `json:"question"`
	}
	if err := json.Unmarshal(data, &kinds); err != nil {
		return Cases{}, fmt.Errorf("plugintest: cases: want a JSON array of calls or decisions: %w", err)
	}
	if len(kinds) == 0 {
		return Cases{}, fmt.Errorf("plugintest: cases: the array is empty")
	}
	for i, k := range kinds {
		if (k.Tool == "") == (k.Question == nil) || (k.Tool == "") != (kinds[0].Tool == "") {
			return Cases{}, fmt.Errorf(`plugintest: cases[%d]: want "tool" in all of them, or "question" in all of them`, i)
		}
	}
	var c Cases
	var err error
	if kinds[0].Tool != "" {
		err = strict(data, &c.Calls)
	} else {
		err = strict(data, &c.Decisions)
	}
	if err != nil {
		return Cases{}, fmt.Errorf("plugintest: cases: %w", err)
	}
	return c, nil
}

// strict decodes what must not hold a field that is not known: a misspelt one
// would make a case that expects nothing.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// sameJSON compares two JSON values.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
