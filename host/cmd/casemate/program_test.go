package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

const root = "../../.."

// TestProgram builds the program and the shipped guests as make build does,
// and uses them as somebody does who has just cloned the repository.
func TestProgram(t *testing.T) {
	dir := buildAll(t)
	t.Run("demo", func(t *testing.T) {
		out := runIn(t, dir, nil, filepath.Join(dir, "bin", "casemate"), "demo")
		for _, want := range []string{"response.mcp_call.completed", "response.completed", "42"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in:\n%s", want, out)
			}
		}
	})
	t.Run("inspect", func(t *testing.T) {
		out := runIn(t, dir, nil, filepath.Join(dir, "bin", "casemate"), "plugin", "inspect", "build/wasm/notes.wasm")
		for _, want := range []string{"native/1", "notes ", "kv.get/1, kv.put/1", "casemate_v1.input_read"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in:\n%s", want, out)
			}
		}
	})
	t.Run("conformance", func(t *testing.T) {
		casemate := filepath.Join(dir, "bin", "casemate")
		for guest, cases := range map[string]string{
			"calculator": "examples/tools/calculator/testdata/calls.json",
			"notes":      "examples/tools/notes/testdata/calls.json", "route-default": "policies/route-default/testdata/decisions.json",
			"retry-default": "policies/retry-default/testdata/decisions.json",
		} {
			file, err := filepath.Abs(filepath.Join(root, cases))
			if err != nil {
				t.Fatal(err)
			}
			if out := runIn(t, dir, nil, casemate, "plugin", "test", "build/wasm/"+guest+".wasm", "--cases", file); !strings.Contains(out, "ok: "+guest+" ") {
				t.Errorf("plugin test %s says:\n%s", guest, out)
			}
		}
		out := runIn(t, dir, nil, casemate, "plugin", "run", "build/wasm/calculator.wasm", "--tool", "calculator", "--input", `{"expression":"6*7"}`)
		if !strings.Contains(out, `"output":42`) {
			t.Errorf("plugin run says:\n%s", out)
		}
		out = runIn(t, dir, nil, casemate, "plugin", "bench", "build/wasm/calculator.wasm", "--n", "20")
		if !strings.Contains(out, "median of 20") {
			t.Errorf("plugin bench says:\n%s", out)
		}
	})
	t.Run("pack is repeatable", func(t *testing.T) {
		file := filepath.Join(dir, "build", "wasm", "calculator.wasm")
		before := readFile(t, file)
		runIn(t, dir, nil, filepath.Join(dir, "bin", "casemate"), "plugin", "pack", file)
		if readFile(t, file) != before {
			t.Error("packing a packed module changed it")
		}
	})
	t.Run("curl", func(t *testing.T) {
		p := serveIn(t, dir, []string{"CASEMATE_LISTEN=127.0.0.1:0"})
		got := runIn(t, dir, nil, "sh", "-c", lineWith(t, p.out, "curl "))
		for _, want := range []string{"200 OK", `"mcp_call"`, "42"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in:\n%s", want, got)
			}
		}
	})
	t.Run("first tool of the README", func(t *testing.T) { firstTool(t, dir) })
	t.Run("a second signal stops at once", func(t *testing.T) { secondSignal(t, dir) })
	t.Run("official clients", func(t *testing.T) { officialClients(t, dir) })
}

// firstTool follows the README: its Go code, its configuration, its question.
func firstTool(t *testing.T, dir string) {
	readme := readFile(t, filepath.Join(root, "README.md"))
	source := filepath.Join(t.TempDir(), "main.go")
	writeFile(t, source, block(t, readme, "```go\n"))
	wasm := filepath.Join(dir, "build", "wasm", "greeter.wasm")
	runIn(t, root, wasip1, "go", "build", "-buildmode=c-shared", "-o", wasm, source)
	casemate := filepath.Join(dir, "bin", "casemate")
	runIn(t, dir, nil, casemate, "plugin", "pack", wasm)
	file := filepath.Join(dir, "greeter.yaml")
	writeFile(t, file, block(t, readme, "```yaml\n"))

	p := serveIn(t, dir, []string{"CASEMATE_LISTEN=127.0.0.1:0", "CASEMATE_STORE=sqlite:greeter.db"}, "--config", file)
	var question string
	for line := range strings.Lines(readme) {
		if strings.HasPrefix(line, "curl ") && strings.Contains(line, "greet") {
			question = line
		}
	}
	got := runIn(t, dir, nil, "sh", "-c", strings.Replace(question, "http://127.0.0.1:8080", p.url, 1))
	for _, want := range []string{"200 OK", `"mcp_call"`, "Hello, Ada!"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

// secondSignal stops a host that has work to drain and an hour for it.
func secondSignal(t *testing.T, dir string) {
	config, called := slowConfig(t, dir)
	p := serveIn(t, dir, []string{"CASEMATE_DRAIN=1h", "CASEMATE_STORE=sqlite:second.db"}, "--config", config)
	body := strings.NewReader(`{"model":"slow","background":true,"input":"wait"}`)
	resp, err := http.Post(p.url+"/v1/responses", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case <-called:
	case <-time.After(patience):
		t.Fatalf("the request (%s) never reached its upstream", resp.Status)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := awaitFile(p.out, "stopping: running requests may end"); err != nil {
		t.Fatal(err)
	}
	// A signal right after the first is taken for the same, so it is repeated.
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for ; ; <-again.C {
		log, err := os.ReadFile(p.out)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), "stopping at once") {
			break
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	p.wait(t)
}

// block returns the first code block of a text that begins with fence.
func block(t *testing.T, text, fence string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, fence)
	code, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatalf("no code block begins with %q", fence)
	}
	return code
}

// TestVariablesAreDocumented compares what the program knows with what the
// README and the help say.
func TestVariablesAreDocumented(t *testing.T) {
	_, err := host.LoadConfig("", []string{"CASEMATE_NO_SUCH=x"}, hclog.NewNullLogger())
	if err == nil {
		t.Fatal("an unknown variable is accepted")
	}
	names := regexp.MustCompile(`CASEMATE_[A-Z_]+`).FindAllString(err.Error(), -1)
	if len(names) < 10 {
		t.Fatalf("%v names %d variables", err, len(names))
	}
	readme := readFile(t, filepath.Join(root, "README.md"))
	for _, name := range names[1:] { // the first is the unknown one
		if !strings.Contains(configHelp, name) {
			t.Errorf("%s is not in the help of config check", name)
		}
		if !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("%s is not in the README", name)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wasip1 is the environment that guests are built in.
var wasip1 = []string{"GOOS=wasip1", "GOARCH=wasm"}

// buildAll builds the program into bin and the packed guests into build/wasm of
// a fresh directory, and returns that.
func buildAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	casemate := filepath.Join(dir, "bin", "casemate")
	runIn(t, root, nil, "go", "build", "-o", casemate, "./host/cmd/casemate")
	for _, guest := range []string{
		"examples/tools/calculator", "examples/tools/notes", "policies/route-default", "policies/retry-default",
	} {
		wasm := filepath.Join(dir, "build", "wasm", filepath.Base(guest)+".wasm")
		runIn(t, root, wasip1,
			"go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-o", wasm, "./"+guest)
		runIn(t, root, nil, casemate, "plugin", "pack", wasm)
	}
	return dir
}

// runIn runs a program in dir and returns what it printed; it must end with 0.
func runIn(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// serving is a program that serves.
type serving struct {
	cmd  *exec.Cmd
	out  string // file that holds what it prints
	url  string
	wait func(*testing.T) // for its end, which must be a good one
}

// serveIn starts the program built in dir and waits until it is up. The test's
// end stops it.
func serveIn(t *testing.T, dir string, env []string, args ...string) serving {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "casemate"), append([]string{"serve"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := serving{cmd: cmd, out: out.Name()}
	ended := sync.OnceValue(cmd.Wait)
	p.wait = func(t *testing.T) {
		impatient := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // it may just have ended
		defer impatient.Stop()
		if err := ended(); err != nil && !errors.Is(err, context.Canceled) || t.Failed() {
			t.Errorf("serve ended with %v; it printed:\n%s", err, readFile(t, p.out))
		}
	}
	t.Cleanup(func() { p.wait(t) }) // t.Context has ended by then
	if err := awaitFile(p.out, `(?m)^  curl .*$`); err != nil {
		t.Fatal(err)
	}
	_, p.url, _ = strings.Cut(lineWith(t, p.out, "casemate is up at "), "up at ")
	return p
}

// lineWith returns the first line of a file that holds text.
func lineWith(t *testing.T, file, text string) string {
	t.Helper()
	all := readFile(t, file)
	for line := range strings.Lines(all) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no line of %s holds %q:\n%s", file, text, all)
	return ""
}

// slowConfig writes a configuration with model demo, and with model slow whose
// upstream never answers. The channel yields a value when it is called.
func slowConfig(t *testing.T, dir string) (file string, called <-chan struct{}) {
	t.Helper()
	calls, never := make(chan struct{}, 1), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// Only with its body read does the server see that a caller hangs up.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		select {
		case calls <- struct{}{}:
		default:
		}
		select {
		case <-never:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(upstream.Close)
	t.Cleanup(func() { close(never) })
	file = filepath.Join(dir, "slow.yaml")
	writeFile(t, file, `listen: 127.0.0.1:0
store: sqlite:slow.db
drain: 1s
upstreams:
  - {name: demo, kind: demo}
  - {name: slow, kind: openai, base_url: "`+upstream.URL+`/v1"}
models:
  - {name: demo, targets: [{upstream: demo, model: demo}]}
  - {name: slow, targets: [{upstream: slow, model: slow}]}
plugins:
  - file: build/wasm/calculator.wasm
`)
	return file, calls
}
