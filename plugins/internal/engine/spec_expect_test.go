package engine_test

import (
	"slices"
	"strings"
)

// wanted returns the kinds of outcome that a script asks for at c.
func wanted(c *specCommand) []string {
	switch c.Type {
	case "assert_invalid", "assert_malformed":
		return []string{"refused"}
	case "assert_unlinkable":
		return []string{"unlinkable", "refused"}
	case "assert_trap", "assert_exhaustion", "assert_uninstantiable":
		return trapsFor(c.Text)
	}
	return []string{"ok"}
}

// trapsFor translates the text of a script. wazero has one trap for all
// accesses of tables.
func trapsFor(text string) []string {
	switch {
	case text == "call stack exhausted":
		return []string{"stack overflow", errStack.Error()}
	case text == "indirect call":
		return []string{"indirect call type mismatch"}
	case text == "undefined", text == "undefined element", text == "out of bounds table access", strings.HasPrefix(text, "uninitialized"):
		return []string{"invalid table access"}
	}
	return []string{text}
}

// meets reports whether o is what the script asks for at c.
func (o outcome) meets(c *specCommand) bool {
	return slices.Contains(wanted(c), o.kind) && (c.Type != "assert_return" || matchAll(c.Expected, o.values))
}

// same reports whether the outcome p of a rewritten module is that of the
// original. That the stack is used up the host must find, never wazero.
func (o outcome) same(p outcome) bool {
	want := o.kind
	if want == "stack overflow" {
		want = errStack.Error()
	}
	return p.kind == want && slices.Equal(o.values, p.values) && o.memory == p.memory
}
