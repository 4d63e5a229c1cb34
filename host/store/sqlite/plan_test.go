package sqlite

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestKeysAreFoundByIndex: no statement on plugins' keys reads all of them.
func TestKeysAreFoundByIndex(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, c := range map[string]struct {
		query string
		args  int
		want  string
	}{
		"get":   {selectKV, 3, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key=?)"},
		"list":  {listKV + pageKV, 5, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key>?)"},
		"range": {listKV + boundKV + pageKV, 6, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key>? AND key<?)"},
		"count": {countKV, 2, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=?)"},
		"sweep": {removeExpiredKV, 2, "SEARCH kv USING COVERING INDEX kv_expired (expires_at<?)"},
	} {
		var plan []string
		rows, err := d.(*driver).readers.Query("explain query plan "+c.query, make([]any, c.args)...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = drain(rows, func(scan scan) error {
			var id, parent, unused int
			var step string
			err := scan(&id, &parent, &unused, &step)
			plan = append(plan, step)
			return err
		})
		text := strings.Join(plan, "\n")
		if err != nil || !strings.Contains(text, c.want) || strings.Contains(text, "SCAN") || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s: got %s, %v, want %s and nothing sorted", name, text, err, c.want)
		}
	}
}
