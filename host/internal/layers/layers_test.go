// Package layers holds no code, only the laws of the tree as tests: who may
// import whom, what every package and file owes its reader.
package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../../.."
	module = "github.com/casemate/casemate/"
	// maxLines is the most lines of a Go file.
	maxLines = 500
)

// file is one Go file of the module, whatever its build tags.
type file struct {
	name   string // from the root, with slashes
	lines  int
	syntax *ast.File
	fset   *token.FileSet
}

// pkg returns the directory of f, which is the package's path in the module.
func (f file) pkg() string { return path.Dir(f.name) }

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// imports returns the import paths of f.
func (f file) imports() []string {
	var all []string
	for _, s := range f.syntax.Imports {
		imp, _ := strconv.Unquote(s.Path.Value)
		all = append(all, imp)
	}
	return all
}

func TestImports(t *testing.T) { report(t, checkImports(tree(t))) }

func TestOwners(t *testing.T) { report(t, checkOwners(tree(t))) }

func TestPackageSentences(t *testing.T) { report(t, checkSentences(tree(t))) }

func TestFileLengths(t *testing.T) { report(t, checkLengths(tree(t))) }

func TestTestsDoNotSleep(t *testing.T) { report(t, checkSleeps(tree(t))) }

func TestGuestsAreChecked(t *testing.T) { report(t, checkConformance(tree(t))) }

func report(t *testing.T, found []string) {
	t.Helper()
	for _, f := range found {
		t.Error(f)
	}
}

// tree parses every Go file of the module. It reads the files itself: a test
// that asked "go list" would be answered from the test cache after an edit.
func tree(t *testing.T) []file {
	t.Helper()
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if p != root && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || isModule(p)) {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(p, ".go"):
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := parse(fset, filepath.ToSlash(rel), src)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found %d Go files under %s: the walk is broken", len(files), root)
	}
	return files
}

// isModule reports whether dir has a go.mod of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func parse(fset *token.FileSet, name string, src []byte) (file, error) {
	syntax, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return file{}, fmt.Errorf("layers: %w", err)
	}
	return file{name: name, lines: strings.Count(string(src), "\n"), syntax: syntax, fset: fset}, nil
}

// checkImports holds the files that are no tests to the import law.
func checkImports(files []file) []string {
	var found []string
	for _, f := range files {
		if f.isTest() {
			continue
		}
		may, ok := lookup(f.pkg())
		if !ok {
			found = append(found, fmt.Sprintf("%s: package %s has no line in the import law", f.name, f.pkg()))
			continue
		}
		for _, imp := range f.imports() {
			in, ours := strings.CutPrefix(imp, module)
			if ours && !matchAny(may, in) {
				found = append(found, fmt.Sprintf("%s: %s imports %s; the law allows %q", f.name, f.pkg(), in, may))
			}
		}
	}
	return found
}

// checkOwners holds the files that are no tests to the list of third-party
// modules.
func checkOwners(files []file) []string {
	var found []string
	for _, f := range files {
		if f.isTest() {
			continue
		}
		for _, imp := range f.imports() {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") || strings.HasPrefix(imp, module) {
				continue // standard library or ours
			}
			at := slices.IndexFunc(owners, func(o owner) bool { return imp == o.module || strings.HasPrefix(imp, o.module+"/") })
			switch {
			case at < 0:
				found = append(found, fmt.Sprintf("%s: imports %s, which has no line in the list of owners", f.name, imp))
			case !matchAny(owners[at].pkgs, f.pkg()):
				found = append(found, fmt.Sprintf("%s: %s imports %s; only %s may", f.name, f.pkg(), imp, owners[at].pkgs))
			}
		}
	}
	return found
}

// shipped are the packages of guests that users get, and kit is what their
// tests have to ask.
const (
	shipped = "policies/* examples/tools/*"
	kit     = module + "plugins/plugintest/plugintesting"
)

// checkConformance wants the conformance kit in the tests of each shipped guest.
func checkConformance(files []file) []string {
	checked := map[string]bool{}
	for _, f := range files {
		if matchAny(shipped, f.pkg()) {
			checked[f.pkg()] = checked[f.pkg()] || f.isTest() && slices.Contains(f.imports(), kit)
		}
	}
	var found []string
	for pkg, ok := range checked {
		if !ok {
			found = append(found, pkg+": no test runs the conformance kit: call plugintesting.Check")
		}
	}
	slices.Sort(found)
	return found
}

// checkSentences wants one comment for each package that begins as godoc
// wants it. A package that has tests only keeps it in a test.
func checkSentences(files []file) []string {
	documented, code, all := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, f := range files {
		all[f.pkg()] = true
		code[f.pkg()] = code[f.pkg()] || !f.isTest()
	}
	for _, f := range files {
		if f.isTest() && code[f.pkg()] {
			continue
		}
		name := f.syntax.Name.Name
		text := f.syntax.Doc.Text()
		if strings.HasPrefix(text, "Package "+name+" ") || name == "main" && strings.HasPrefix(text, "Command ") {
			documented[f.pkg()] = true
		}
	}
	var found []string
	for pkg := range all {
		if !documented[pkg] {
			found = append(found, fmt.Sprintf("%s: no package sentence: want a comment that begins with Package NAME, or Command for a main", pkg))
		}
	}
	slices.Sort(found)
	return found
}

func checkLengths(files []file) []string {
	var found []string
	for _, f := range files {
		if f.lines > maxLines {
			found = append(found, fmt.Sprintf("%s: %d lines, more than %d: is a type missing?", f.name, f.lines, maxLines))
		}
	}
	return found
}

// checkSleeps allows time.Sleep in tests inside the bodies given to
// synctest.Test only, where it takes no time and always wakes in order.
func checkSleeps(files []file) []string {
	var found []string
	for _, f := range files {
		if !f.isTest() {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch {
			case isCall(call, "synctest", "Test"):
				return false
			case isCall(call, "time", "Sleep"):
				found = append(found, fmt.Sprintf("%s: time.Sleep: wait for the event, or use synctest", f.fset.Position(call.Pos())))
			}
			return true
		})
	}
	return found
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg && sel.Sel.Name == name
}

func lookup(pkg string) (string, bool) {
	for _, l := range law {
		if ok, _ := path.Match(l.pkg, pkg); ok {
			return l.mayImport, true
		}
	}
	return "", false
}

// matchAny reports whether pkg matches one of the patterns, none of which
// begins with "!", or is shut out by one that does.
func matchAny(patterns, pkg string) bool {
	match := false
	for p := range strings.FieldsSeq(patterns) {
		if not, ok := strings.CutPrefix(p, "!"); ok {
			if m, _ := path.Match(not, pkg); m {
				return false
			}
			continue
		}
		m, _ := path.Match(p, pkg)
		match = match || m
	}
	return match
}
