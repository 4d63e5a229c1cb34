package host_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/queue"
)

// asked sends a chat completion with a key and returns the answer.
func asked(t *testing.T, base, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", res.StatusCode, text, err)
	}
	return string(text)
}

// What a model's record mode leaves of its chat completions: a row and what it
// used, or only the latter; under a cap always a row.
func TestRecordModes(t *testing.T) {
	for _, capped := range []bool{false, true} {
		t.Run(fmt.Sprint("capped ", capped), func(t *testing.T) {
			c := host.Config{
				Listen: "127.0.0.1:0", Store: "sqlite:" + filepath.Join(t.TempDir(), "c.db"), Logger: hclog.NewNullLogger(),
				Upstreams: []host.Upstream{{Name: "demo", Kind: "demo"}},
				Tenants:   []host.Tenant{{Name: "t", KeyHashes: [][32]byte{sha256.Sum256([]byte("key"))}}},
			}
			for _, mode := range []string{"before", "after", "off"} {
				c.Models = append(c.Models, host.Model{Name: mode, Record: mode, Targets: []host.Target{{Upstream: "demo", Model: "demo"}}})
			}
			rows := 4
			if capped {
				c.Tenants[0].MaxRunning, rows = 2, 6
			}
			h, err := host.New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			for _, m := range c.Models {
				for _, stream := range []bool{false, true} {
					body := fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"hello"}]}`, m.Name, stream)
					if got := asked(t, "http://"+h.Addr().String(), body); !strings.Contains(got, `"content"`) {
						t.Errorf("%s: got %s", body, got)
					}
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			d, err := host.OpenStore(t.Context(), c, true)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			r, err := d.Inspect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tables := map[string]int64{}
			for _, table := range r.Tables {
				tables[table.Name] = table.Rows
			}
			if n := r.States[queue.Completed]; n != rows || len(r.States) != 1 {
				t.Errorf("states %v, want %d completed", r.States, rows)
			}
			if tables["usage"] != 6 || tables["decision"] != int64(rows) || tables["body"] != 0 {
				t.Errorf("rows by table %v, want 6 of usage, %d of decision, no body", tables, rows)
			}
		})
	}
}
