package engine_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// specFile is one script of the WebAssembly spec test suite, as wast2json
// writes it.
type specFile struct {
	dir      string
	Commands []specCommand `json:"commands"`
}

// specCommand is one command of a script.
type specCommand struct {
	Type     string      `json:"type"`
	Line     int         `json:"line"`
	Name     string      `json:"name"`        // of a module, for later commands
	Filename string      `json:"filename"`    // of a module
	Form     string      `json:"module_type"` // "binary" or "text"
	As       string      `json:"as"`          // register: the name for imports
	Text     string      `json:"text"`        // of the error that is expected
	Action   specAction  `json:"action"`
	Expected []specValue `json:"expected"`
}

// specAction calls an export or reads a global.
type specAction struct {
	Type   string      `json:"type"`
	Module string      `json:"module"` // "" for the last one
	Field  string      `json:"field"`
	Args   []specValue `json:"args"`
}

// wasm reads the module of c.
func (f *specFile) wasm(t *testing.T, c *specCommand) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, c.Filename))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// registeredAs returns the name under which other modules import the module of
// command i, "" for none: the suite registers a module right after it.
func (f *specFile) registeredAs(i int) string {
	if i+1 < len(f.Commands) && f.Commands[i+1].Type == "register" {
		return f.Commands[i+1].As
	}
	return ""
}

// suiteDir is where the wazero module keeps the suite. The tests of this
// package compile against that module, so it is in the module cache.
var suiteDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest"), err
})

func specDir(t *testing.T) string {
	t.Helper()
	dir, err := suiteDir()
	if err != nil {
		t.Fatalf("go list -m github.com/tetratelabs/wazero: %v; the spec test suite is in that module's directory", err)
	}
	return dir
}

// loadSpec reads the scripts of one version of the suite, by name.
func loadSpec(t *testing.T, version string) map[string]*specFile {
	t.Helper()
	dir := filepath.Join(specDir(t), version, "testdata")
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(names) < 50 {
		t.Fatalf("found %d scripts of the spec test suite in %s (%v), want at least 50", len(names), dir, err)
	}
	files := map[string]*specFile{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := &specFile{dir: dir}
		if err := json.Unmarshal(b, f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[strings.TrimSuffix(filepath.Base(name), ".json")] = f
	}
	return files
}
