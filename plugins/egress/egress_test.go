package egress

import (
	"os"
	"strings"
	"testing"
)

// TestNoProxy: what the environment says of proxies is not for plugins. It is
// read once in a process, so setting it here would show nothing.
func TestNoProxy(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	if c.public.Proxy != nil || c.private.Proxy != nil {
		t.Error("a proxy may be used")
	}
}

// TestContract: the contract with guests names every field that is refused.
func TestContract(t *testing.T) {
	text, err := os.ReadFile("../../sdk/abi/ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range ownFields {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("ABI.md does not name %s", name)
		}
	}
}
