package endtoend_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
)

// TestHostsThroughPgBouncer has whole hosts on three connections of a PgBouncer
// in transaction mode: requests run, queued and realtime, and a cancel reaches
// the other host, by its heartbeat where no notification arrives.
func TestHostsThroughPgBouncer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		site   func(direct string) site
		doctor string
	}{
		{"notify on a direct URL", func(direct string) site { return site{hears: direct} }, "hints between hosts arrive"},
		{"notify off", func(string) site { return site{quiet: true} }, "hints between hosts are off"},
		{"notify not set", func(string) site { return site{} }, "hints between hosts do not arrive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pooled, direct := testdb.PgBouncer(t)
			rec, began := &recorder{}, make(chan string, 1)
			r := newRig(t, direct, rec.script(func(_ int, req demo.Request) demo.Turn {
				if !strings.Contains(string(req.Body), "hold on") {
					return demo.Turn{Text: "done"}
				}
				began <- strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer site")
				return demo.Turn{Gate: make(chan struct{})}
			}))
			hosts := map[string]*host{}
			at := tt.site(direct)
			at.store = pooled + "&default_query_exec_mode=exec"
			for _, at.name = range []string{"0", "1"} {
				hosts[at.name] = r.startAt(at)
			}
			var ids []string
			for range 20 {
				ids = append(ids, hosts["0"].background("hello"))
			}
			if status, v := hosts["1"].post("/v1/responses", map[string]any{"model": "m", "input": "hello"}); status != http.StatusOK || text(v) != "done" {
				t.Errorf("realtime: got %d %v", status, v)
			}
			for _, id := range ids {
				if v := hosts["1"].await(id); v["status"] != "completed" || text(v) != "done" {
					t.Errorf("got %v", v)
				}
			}
			id := hosts["0"].background("hold on")
			other := map[string]string{"0": "1", "1": "0"}[<-began]
			sent := time.Now()
			if status, v := hosts[other].post("/v1/responses/"+id+"/cancel", nil); status != http.StatusOK || v["status"] != "cancelled" {
				t.Fatalf("cancel: %d %v", status, v)
			}
			r.eventually("the upstream sees the call broken off", func() bool { return !rec.of(id)[0].ended.IsZero() })
			t.Logf("a cancel took %s", time.Since(sent))
			if took := time.Since(sent); took > 10*time.Second {
				t.Errorf("a cancel took %s", took)
			}
			doctor := exec.Command(filepath.Join(built, "casemate"), "queue", "doctor", "--config", filepath.Join(r.dir, "casemate1.yaml"))
			doctor.Env = append(os.Environ(), siteVariable+"=any")
			out, err := doctor.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.doctor) {
				t.Errorf("doctor: %v, want %q\n%s", err, tt.doctor, out)
			}
			for _, h := range hosts {
				h.term()
			}
		})
	}
}
