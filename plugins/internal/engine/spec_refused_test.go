package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// TestRefusedFeatures gives the rewriter the modules of the suite's later
// parts: those that need the part's feature are refused by its name, and wazero
// compiles what is accepted.
func TestRefusedFeatures(t *testing.T) {
	b := newTestbed(t, false)
	for _, r := range refused {
		t.Run(r.suite, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(specDir(t), r.suite, "testdata", "*.wasm"))
			if err != nil || len(files) == 0 {
				t.Fatalf("found %d modules: %v", len(files), err)
			}
			named := 0
			for _, file := range files {
				wasm, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				_, err = rewrite.Rewrite(wasm)
				if errors.Is(err, rewrite.ErrUnsupported) && strings.Contains(err.Error(), r.feature) {
					named++
				}
				if err == nil {
					err = b.compile(wasm)
					if err != nil {
						t.Errorf("%s: accepted; wazero: %v", filepath.Base(file), err)
					}
				}
			}
			if named == 0 {
				t.Errorf("none of %d modules is refused for %s", len(files), r.feature)
			}
			t.Logf("%d of %d modules refused for %s", named, len(files), r.feature)
		})
	}
}
