package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// officialClients runs the tests of examples/clients, each in its own language,
// against one host.
func officialClients(t *testing.T, dir string) {
	config, _ := slowConfig(t, dir)
	p := serveIn(t, dir, nil, "--config", config)
	env := []string{"CASEMATE_TEST_URL=" + p.url + "/v1"}
	t.Run("go", func(t *testing.T) {
		runIn(t, clientDir(t, "go"), env, "go", "test", "-count=1", "./...")
	})
	t.Run("node", func(t *testing.T) {
		need(t, "npm")
		copied := copyDir(t, clientDir(t, "node"), "*.mjs", "*.json")
		runIn(t, copied, nil, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
		runIn(t, copied, env, "npm", "test")
	})
	t.Run("python", func(t *testing.T) {
		need(t, "python3")
		copied := copyDir(t, clientDir(t, "python"), "*.py", "*.txt")
		python := filepath.Join(copied, "venv", "bin", "python")
		runIn(t, copied, nil, "python3", "-m", "venv", "venv")
		runIn(t, copied, nil, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt")
		runIn(t, copied, env, python, "-m", "unittest", "-v")
	})
}

func clientDir(t *testing.T, language string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, "examples", "clients", language))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// need skips a test whose language this machine has not; CI has all of them.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// copyDir copies the files of a directory that match into a new one, so that
// what a test installs stays out of the tree.
func copyDir(t *testing.T, dir string, patterns ...string) string {
	t.Helper()
	to := t.TempDir()
	for _, p := range patterns {
		files, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s in %s: %v, %d files", p, dir, err, len(files))
		}
		for _, f := range files {
			writeFile(t, filepath.Join(to, filepath.Base(f)), readFile(t, f))
		}
	}
	return to
}
