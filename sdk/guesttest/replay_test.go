package guesttest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/sdk/guesttest"
)

// TestReplayToolState: each call finds what those before it wrote and deleted.
func TestReplayToolState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls.json")
	const rows = `[{"name":"put","output":0},{"name":"put nothing","output":1},{"name":"delete","output":2},{"name":"look","output":1}]`
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	puts := []map[string][]byte{{"a": []byte("1")}, {"b": {}}, {"a": nil}, nil}
	guesttest.ReplayTool(t, file, func(_ *testing.T, c guesttest.Call) guesttest.Result {
		r := guesttest.Result{Output: []byte(`{"v":1,"output":` + string('0'+rune(len(c.KV))) + `}`), Puts: puts[0]}
		puts = puts[1:]
		return r
	})
	if len(puts) != 0 {
		t.Errorf("%d calls were not made", len(puts))
	}
}
