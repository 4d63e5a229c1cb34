package endtoend_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/fleet"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/internal/testguest"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

// built is where the binary and the guests are.
var built string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "casemate-endtoend-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	built = dir
	return testdb.Main(m)
}

// buildOnce builds the binary and the guests, for the first test that needs them.
var buildOnce sync.Once

func build(t *testing.T) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(built, "casemate"), "../../cmd/casemate")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the host: %v\n%s", err, out)
	}
	for _, folder := range []string{
		"testdata/waiter", "testdata/stubborn", "testdata/patient", "../../../examples/tools/notes",
		"../../../policies/retry-default", "../../../policies/retry-eager",
	} {
		file := filepath.Join(built, filepath.Base(folder)+".wasm")
		if err := os.WriteFile(file, testguest.Build(t, folder), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// skewedBinary is the path of the host with a wall clock that can be set wrong.
func skewedBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(built, "casemate-skewed")
	buildSkewed.Do(func() {
		overlay, err := fleet.WriteOverlay(built)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-trimpath", "-overlay", overlay, "-o", path, "../../cmd/casemate")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build a host with another clock: %v\n%s", err, out)
		}
	})
	return path
}

var buildSkewed sync.Once

// rig is one scripted upstream, one database and any number of hosts on them.
type rig struct {
	*testing.T
	storeURL string
	upstream *demo.Server
	dir      string
	retry    string // policy module, "" for the built-in one
	route    string
	lease    string
	drain    string
	cap      int    // of each lane: there is a tenant with a key then; 0: none
	kind     string // of the upstream; "": "openai"
	limit    int    // calls that the upstream takes at once from all hosts; 0: no limit
	more     string // YAML of more upstreams
	models   string // YAML of more models
	tenants  string // YAML of more tenants
	driver   store.Driver
	outside  *outside // what tools may change; nil: nothing
}

// site is one host's place where it is not like every other's.
type site struct {
	name  string        // in the name of its configuration file, and the key that it shows the upstream
	store string        // URL in place of the rig's
	skew  time.Duration // of its wall clock
	slots int
	quiet bool   // without notifications
	hears string // URL to listen on in place of the store's
}

// outside is a server that counts what is posted to it.
type outside struct {
	*httptest.Server
	posts atomic.Int32
}

func newOutside(t *testing.T) *outside {
	o := &outside{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { o.posts.Add(1) }))
	t.Cleanup(o.Close)
	return o
}

// apiKey is the key of the tenant that a rig with a cap has.
const apiKey = "sk-endtoend"

func newRig(t *testing.T, storeURL string, script demo.Script) *rig {
	t.Helper()
	buildOnce.Do(func() { build(t) })
	srv, err := demo.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	return &rig{T: t, storeURL: storeURL, upstream: srv, dir: t.TempDir(), lease: "2s", drain: "500ms"}
}

// config writes the configuration of a host and returns its path.
func (r *rig) config(at site) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\nlease: %s\npoll: 200ms\ndrain: %s\n", r.lease, r.drain)
	storeURL := r.storeURL
	if at.store != "" {
		storeURL = at.store
	}
	fmt.Fprintf(&b, "store: %q\ncache_dir: %q\n", storeURL, filepath.Join(built, "cache"))
	if at.slots > 0 {
		fmt.Fprintf(&b, "slots: %d\n", at.slots)
	}
	if at.quiet {
		fmt.Fprintf(&b, "notify: \"off\"\n")
	}
	if at.hears != "" {
		fmt.Fprintf(&b, "notify: %q\n", at.hears)
	}
	fmt.Fprintf(&b, "upstreams:\n  - name: up\n    kind: %s\n    base_url: %q\n    api_key_env: %s\n", cmp.Or(r.kind, "openai"), r.upstream.URL(), siteVariable)
	if r.limit > 0 {
		fmt.Fprintf(&b, "    limits: {max_in_flight: %d}\n", r.limit)
	}
	b.WriteString(r.more)
	fmt.Fprintf(&b, "models:\n  - name: m\n    targets: [{upstream: up, model: real-m}]\n%s", r.models)
	fmt.Fprintf(&b, "plugins:\n")
	fmt.Fprintf(&b, "  - {file: %q, grants: [kv.get/1, kv.put/1]}\n", filepath.Join(built, "notes.wasm"))
	fmt.Fprintf(&b, "  - file: %q\n    grants: [kv.get/1, kv.put/1, http.fetch/1, tool.call/1]\n", filepath.Join(built, "waiter.wasm"))
	if r.outside != nil {
		port := r.outside.Listener.Addr().(*net.TCPAddr).Port
		fmt.Fprintf(&b, "    http: [{scheme: http, host: 127.0.0.1, port: %d, methods: [POST], private: true}]\n", port)
	}
	if r.cap > 0 || r.tenants != "" {
		fmt.Fprintf(&b, "tenants:\n%s", r.tenants)
	}
	if r.cap > 0 {
		b.WriteString(tenantYAML("acme", apiKey, fmt.Sprintf("max_running: %d", r.cap)))
	}
	if r.retry != "" || r.route != "" {
		fmt.Fprintf(&b, "policies:\n")
		if r.retry != "" {
			fmt.Fprintf(&b, "  retry: %q\n", r.retry)
		}
		if r.route != "" {
			fmt.Fprintf(&b, "  route: %q\n", r.route)
		}
	}
	path := filepath.Join(r.dir, "casemate"+at.name+".yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

// tenantYAML is an item of a configuration's list of tenants.
func tenantYAML(name, key, limits string) string {
	return fmt.Sprintf("  - name: %s\n    keys: [{sha256: %x}]\n    limits: {%s}\n", name, sha256.Sum256([]byte(key)), limits)
}

// siteVariable names the variable with the key that a host shows the upstream.
const siteVariable = "CASEMATE_TEST_SITE"

// host is one running process.
type host struct {
	r    *rig
	cmd  *exec.Cmd
	url  string
	done chan error
	logs *logs
}

// logs keeps what a process says, for the message of a failed test.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// start starts a host and waits until it takes requests.
func (r *rig) start() *host {
	r.Helper()
	return r.startAt(site{})
}

// startAt starts a host at a place of its own.
func (r *rig) startAt(at site) *host {
	r.Helper()
	binary := filepath.Join(built, "casemate")
	if at.skew != 0 {
		binary = skewedBinary(r.T)
	}
	cmd := exec.Command(binary, "serve", "--config", r.config(at))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), siteVariable+"=site"+at.name, fmt.Sprintf("%s=%d", fleet.SkewVariable, int(at.skew.Seconds())))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h := &host{r: r, cmd: cmd, done: make(chan error, 1), logs: &logs{}}
	cmd.Stderr = h.logs
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	found := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if u := address.FindString(s.Text()); u != "" {
				select {
				case found <- u:
				default:
				}
			}
		}
		h.done <- cmd.Wait()
	}()
	r.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		if r.Failed() {
			r.Logf("host %s said:\n%s", h.url, h.logs)
		}
	})
	select {
	case h.url = <-found:
	case err := <-h.done:
		r.Fatalf("host ended before it served: %v\n%s", err, h.logs)
	case <-time.After(60 * time.Second):
		r.Fatalf("host does not serve\n%s", h.logs)
	}
	r.eventually("host is ready", func() bool {
		res, err := http.Get(h.url + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return h
}

// signal sends a signal.
func (h *host) signal(s syscall.Signal) {
	h.r.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.r.Fatal(err)
	}
}

// kill ends the host as a power cut would.
func (h *host) kill() {
	h.r.Helper()
	h.signal(syscall.SIGKILL)
	if err := <-h.done; err == nil {
		h.r.Fatal("a killed host ended well")
	}
}

// term asks the host to stop and waits until it has.
func (h *host) term() {
	h.r.Helper()
	h.signal(syscall.SIGTERM)
	select {
	case err := <-h.done:
		if err != nil {
			h.r.Errorf("host ended with %v; want exit code 0\n%s", err, h.logs)
		}
	case <-time.After(30 * time.Second):
		h.r.Fatalf("host does not stop\n%s", h.logs)
	}
}

// post posts a body and returns status and answer.
func (h *host) post(path string, body any) (int, map[string]any) {
	h.r.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		h.r.Fatal(err)
	}
	return h.do(http.MethodPost, path, b)
}

func (h *host) get(path string) (int, map[string]any) {
	h.r.Helper()
	return h.do(http.MethodGet, path, nil)
}

func (h *host) do(method, path string, body []byte) (int, map[string]any) {
	h.r.Helper()
	req, err := http.NewRequestWithContext(h.r.Context(), method, h.url+path, bytes.NewReader(body))
	if err != nil {
		h.r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+apiKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.r.Fatal(err)
	}
	return h.read(res)
}

func (h *host) read(res *http.Response) (int, map[string]any) {
	h.r.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.r.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		h.r.Fatalf("%s: %v", b, err)
	}
	return res.StatusCode, v
}

// background creates a background response and returns its id.
func (h *host) background(input string) string {
	h.r.Helper()
	status, v := h.post("/v1/responses", map[string]any{"model": "m", "input": input, "background": true})
	if status != http.StatusOK {
		h.r.Fatalf("create: %d %v", status, v)
	}
	return v["id"].(string)
}

// await polls a response until it has ended.
func (h *host) await(id string) map[string]any {
	h.r.Helper()
	var v map[string]any
	h.r.eventually("response "+id+" ends", func() bool {
		_, v = h.get("/v1/responses/" + id)
		return v["status"] != "queued" && v["status"] != "in_progress"
	})
	return v
}

// text returns the text of a response's last message.
func text(v map[string]any) string {
	var out string
	items, _ := v["output"].([]any)
	for _, it := range items {
		item := it.(map[string]any)
		if item["type"] != "message" {
			continue
		}
		out = ""
		for _, c := range item["content"].([]any) {
			if s, ok := c.(map[string]any)["text"].(string); ok {
				out += s
			}
		}
	}
	return out
}

// db opens the database beside the hosts, to look at rows.
func (r *rig) db() store.Driver {
	r.Helper()
	if r.driver != nil {
		return r.driver
	}
	var err error
	if path, ok := strings.CutPrefix(r.storeURL, "sqlite:"); ok {
		r.driver, err = sqlite.Open(context.Background(), path, sqlite.Options{ReadOnly: true})
	} else {
		r.driver, err = postgres.Open(context.Background(), r.storeURL, postgres.Options{ReadOnly: true})
	}
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := r.driver.Close(); err != nil {
			r.Error(err)
		}
	})
	return r.driver
}

// record reads all of a request.
func (r *rig) record(id string) store.Record {
	r.Helper()
	key, err := queue.ParseID(strings.TrimPrefix(id, "resp_"))
	if err != nil {
		r.Fatal(err)
	}
	rec, err := r.db().Get(context.Background(), "", key, store.Parts{
		Body: true, Result: true, Steps: true, Events: true, Decisions: true, Usage: true,
	})
	if err != nil {
		r.Fatal(err)
	}
	return rec
}

// eventually waits until ok holds. It looks again and again: what it waits for
// happens in other processes.
func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	r.within(time.Minute, what, ok)
}

// within waits until ok, for so long at most.
func (r *rig) within(most time.Duration, what string, ok func() bool) {
	r.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(most)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			r.Fatalf("%s: not within %s", what, most)
		}
	}
}
