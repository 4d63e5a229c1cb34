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
	var all memories
	m := &memory{of: &all}
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
	if m.bytes != 0 || len(m.list) != 0 || all.bytes != 0 || all.order.Len() != 0 {
		t.Errorf("got %d bytes in %d, %d in %d of all, want none", m.bytes, len(m.list), all.bytes, all.order.Len())
	}
	for i := range maxKept + 1 {
		m.add(fmt.Sprint(i), items(1))
	}
	if has("0") || !has("1") || len(m.list) != maxKept {
		t.Errorf("got %d, want %d without the first", len(m.list), maxKept)
	}
}

// All connections of a host keep so much and no more: what was used least
// recently goes first, whose ever it is.
func TestMemoriesShareOneBound(t *testing.T) {
	var all memories
	each := maxKeptBytes / 2
	full := maxKeptTotal / each
	ms := make([]*memory, full+1)
	for i := range ms {
		ms[i] = &memory{of: &all}
	}
	has := func(i int) bool { _, ok := ms[i].get("a"); return ok }
	for _, m := range ms[:full] {
		m.add("a", items(each))
	}
	if !has(0) {
		t.Fatal("the first is gone with room for all")
	}
	ms[full].add("a", items(each))
	if !has(0) || has(1) || !has(full) {
		t.Errorf("got %t %t %t of the one just used, the one used before all others and the new one, want true false true", has(0), has(1), has(full))
	}
	if all.bytes != maxKeptTotal {
		t.Errorf("got %d bytes, want %d", all.bytes, maxKeptTotal)
	}
	ms[1].add("huge", items(2*maxKeptTotal))
	if _, ok := ms[1].get("huge"); !ok || all.order.Len() != 1 {
		t.Errorf("got %d kept, want the last one alone, however large it is", all.order.Len())
	}
	for _, m := range ms {
		m.close()
	}
	if all.bytes != 0 || all.order.Len() != 0 || len(ms[1].list) != 0 {
		t.Errorf("got %d bytes in %d, want none", all.bytes, all.order.Len())
	}
}

func TestCensus(t *testing.T) {
	var c census
	for range maxSockets {
		if err := c.enter("acme"); err != nil {
			t.Fatal(err)
		}
	}
	if e := explain(c.enter("acme")); e == nil || e.Status != 429 || e.RetryAfter == 0 {
		t.Errorf("got %v, want a 429 that says when to come again", e)
	}
	if err := c.enter("globex"); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	c.leave("acme")
	if err := c.enter("acme"); err != nil {
		t.Errorf("after one left: %v", err)
	}
	for range maxSockets {
		c.leave("acme")
	}
	c.leave("globex")
	if len(c.open) != 0 {
		t.Errorf("got %v, want nobody", c.open)
	}
}
