package guesttest

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// Call is one call of a guest.
type Call struct {
	Entry string // abi.ExportToolCall, abi.ExportRoute or abi.ExportRetry
	Input []byte // the envelope of Entry
	Seed  int64  // of a policy's question
	NowMS int64  // of a policy's question
}

// Result is how a call ended.
type Result struct {
	Output []byte // when the call succeeded
	Code   string // name of the fail code, or the class of any other failure
	Text   string // of the failure
}

// Caller calls a guest: a module, or its functions natively.
type Caller func(t *testing.T, c Call) Result

// policyRow is one row of a decision table.
type policyRow struct {
	Name     string          `json:"name"`
	Question json.RawMessage `json:"question"`
	Answer   json.RawMessage `json:"answer"`
}

// ReplayPolicy asks the questions of a decision table, each three times, and
// wants its answer each time. entry is abi.ExportRoute or abi.ExportRetry.
func ReplayPolicy(t *testing.T, file, entry string, call Caller) {
	t.Helper()
	var rows []policyRow
	read(t, file, &rows)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			var about struct {
				Seed  int64 `json:"seed"`
				NowMS int64 `json:"now_ms"`
			}
			if err := json.Unmarshal(row.Question, &about); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				got := call(t, Call{Entry: entry, Input: row.Question, Seed: about.Seed, NowMS: about.NowMS})
				if got.Code != "" {
					t.Fatalf("got %s: %s", got.Code, got.Text)
				}
				same(t, got.Output, row.Answer)
			}
		})
	}
}

// read decodes a file of rows, which must not be empty.
func read[Row any](t *testing.T, file string, rows *[]Row) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, rows); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(*rows) == 0 {
		t.Fatalf("%s: no rows", file)
	}
}

// same compares two JSON values.
func same(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("got %q: %v", got, err)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatalf("want %q: %v", want, err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
