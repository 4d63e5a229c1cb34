package api

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// items are one item of this many bytes.
func items(bytes int) []response.Item {
	return []response.Item{{Type: "message", Raw: make(json.RawMessage, bytes)}}
}

func TestMemory(t *testing.T) {
	var m memory
	has := func(id string) bool { _, ok := m.get(id); return ok }
	m.add("a", items(maxKeptBytes/2))
	m.add("b", items(maxKeptBytes/4))
	if !has("a") { // b is now the one used least recently
		t.Fatal("a is gone")
	}
	m.add("c", items(maxKeptBytes/2))
	if has("b") || !has("a") || !has("c") {
		t.Error("want b gone, which was used least recently")
	}
	m.add("d", items(2*maxKeptBytes))
	if has("a") || has("c") || !has("d") {
		t.Error("want the last one alone, however large it is")
	}
	m.drop("d")
	m.drop("d")
	if m.bytes != 0 || len(m.list) != 0 {
		t.Errorf("got %d bytes in %d, want none", m.bytes, len(m.list))
	}
	for i := range maxKept + 1 {
		m.add(fmt.Sprint(i), items(1))
	}
	if has("0") || !has("1") || len(m.list) != maxKept {
		t.Errorf("got %d, want %d without the first", len(m.list), maxKept)
	}
}
