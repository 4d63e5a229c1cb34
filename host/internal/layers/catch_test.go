package layers

import (
	"go/token"
	"strings"
	"testing"
)

// TestChecksCatch shows each check a small tree that breaks its law once.
func TestChecksCatch(t *testing.T) {
	const doc = "// Package x is.\npackage x\n"
	tests := []struct {
		name  string
		check func([]file) []string
		files map[string]string
		want  string // "" for nothing
	}{
		{"an allowed import", checkImports, map[string]string{"host/claimer/a.go": doc + `import _ "` + module + `host/store"`}, ""},
		{"a stage imports a driver", checkImports, map[string]string{"host/claimer/a.go": doc + `import _ "` + module + `host/store/sqlite"`}, "imports host/store/sqlite"},
		{"plugins imports host", checkImports, map[string]string{"plugins/a.go": doc + `import _ "` + module + `host/queue"`}, "imports host/queue"},
		{"a guest imports plugins", checkImports, map[string]string{"policies/p/a.go": doc + `import _ "` + module + `plugins"`}, "imports plugins"},
		{"a build tag hides nothing", checkImports, map[string]string{"policies/p/a.go": "//go:build wasip1\n\n" + doc + `import _ "` + module + `plugins"`}, "imports plugins"},
		{"host imports the driver suite", checkImports, map[string]string{"host/a.go": doc + `import _ "` + module + `host/store/storetest"`}, "imports host/store/storetest"},
		{"a package without a line", checkImports, map[string]string{"host/util/a.go": doc}, "host/util has no line"},
		{"a test is free", checkImports, map[string]string{"host/queue/a_test.go": doc + `import _ "` + module + `host/store"`}, ""},
		{"the owner", checkOwners, map[string]string{"plugins/internal/engine/a.go": doc + `import _ "github.com/tetratelabs/wazero/api"`}, ""},
		{"a second owner", checkOwners, map[string]string{"plugins/a.go": doc + `import _ "github.com/tetratelabs/wazero/api"`}, "imports github.com/tetratelabs/wazero/api; only plugins/internal/engine"},
		{"a module without a line", checkOwners, map[string]string{"host/a.go": doc + `import _ "example.com/left-pad"`}, "imports example.com/left-pad, which has no line"},
		{"a guest imports a module", checkOwners, map[string]string{"examples/tools/a/a.go": doc + `import _ "github.com/google/uuid"`}, "only host/queue"},
		{"the standard library", checkOwners, map[string]string{"host/a.go": doc + `import _ "net/http"`}, ""},
		{"a sentence", checkSentences, map[string]string{"host/x/a.go": doc, "host/x/b.go": "package x\n"}, ""},
		{"no sentence", checkSentences, map[string]string{"host/x/a.go": "package x\n"}, "host/x: no package sentence"},
		{"a sentence on a test only", checkSentences, map[string]string{"host/x/a.go": "package x\n", "host/x/a_test.go": doc}, "host/x: no package sentence"},
		{"a package of tests", checkSentences, map[string]string{"host/x/a_test.go": doc}, ""},
		{"a sentence of another name", checkSentences, map[string]string{"host/y/a.go": "// Package x is.\npackage y\n"}, "host/y: no package sentence"},
		{"a command", checkSentences, map[string]string{"host/cmd/y/a.go": "// Command y does.\npackage main\n"}, ""},
		{"a guest with the kit", checkConformance, map[string]string{"policies/p/a.go": doc, "policies/p/a_test.go": doc + `import _ "` + kit + `"`}, ""},
		{"a guest without the kit", checkConformance, map[string]string{"examples/tools/a/a.go": doc, "examples/tools/a/a_test.go": doc}, "examples/tools/a: no test runs the conformance kit"},
		{"a kit that no test runs", checkConformance, map[string]string{"policies/p/a.go": doc + `import _ "` + kit + `"`}, "policies/p: no test"},
		{"no guest", checkConformance, map[string]string{"host/x/a.go": doc}, ""},
		{"500 lines", checkLengths, map[string]string{"host/x/a.go": doc + strings.Repeat("\n", maxLines-2)}, ""},
		{"501 lines", checkLengths, map[string]string{"host/x/a.go": doc + strings.Repeat("\n", maxLines-1)}, "501 lines"},
		{"a sleeping test", checkSleeps, map[string]string{"host/x/a_test.go": doc + "func f() { time.Sleep(1) }\n"}, "host/x/a_test.go:3:12: time.Sleep"},
		{"a sleep in a bubble", checkSleeps, map[string]string{"host/x/a_test.go": doc + "func f() { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }\n"}, ""},
		{"a sleep that is no test", checkSleeps, map[string]string{"host/x/a.go": doc + "func f() { time.Sleep(1) }\n"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fset := token.NewFileSet()
			var files []file
			for name, src := range tt.files {
				f, err := parse(fset, name, []byte(src))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			got := strings.Join(tt.check(files), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
