package response_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/casemate/casemate/host/response"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata/script")

// TestScripts plays every script: each is a row of the loop's table or a case
// of its own, named by its file.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := filesOf(a)
			s := newSim(t, files).run()
			if err := response.Validate(s.events); err != nil {
				t.Error(err)
			}
			got := s.out()
			if *update {
				writeGolden(t, path, a, got)
				return
			}
			want := map[string]string{}
			for _, k := range goldens {
				want[k] = files[k]
			}
			sameOut(t, "golden", got, want)
			again := newSim(t, files)
			again.restore = true
			sameOut(t, "restored at every boundary", again.run().out(), got)
			roundTripLog(t, s)
		})
	}
}

func writeGolden(t *testing.T, path string, a *txtar.Archive, got map[string]string) {
	t.Helper()
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return slices.Contains(goldens, f.Name) })
	for _, k := range goldens {
		a.Files = append(a.Files, txtar.File{Name: k, Data: []byte(got[k])})
	}
	if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// roundTripLog restores every prefix of the log; the whole log gives back the
// final object.
func roundTripLog(t *testing.T, s *sim) {
	t.Helper()
	for n := 1; n <= len(s.events); n++ {
		r, err := response.Restore(s.events[:n])
		if err != nil {
			t.Fatalf("Restore of %d events: %v", n, err)
		}
		if got, want := r.NextSeq(), int64(n); got != want {
			t.Errorf("NextSeq after %d events: got %d, want %d", n, got, want)
		}
		if n == len(s.events) && string(r.Response()) != string(s.final) {
			t.Errorf("restored final response:\n got %s\nwant %s", r.Response(), s.final)
		}
		// Another worker may take over anywhere, and end the response.
		r.Resume(s.brief.Request, s.tools)
		r.Rebuild(nil)
		rest := append(slices.Clone(s.events[:n]), r.Interrupted()...)
		rest = append(rest, r.Finish(response.End{Status: "failed"})...)
		if err := response.Validate(rest); err != nil {
			t.Errorf("taken over after %d events: %v", n, err)
		}
	}
}
