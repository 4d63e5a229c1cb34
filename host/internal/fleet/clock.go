package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SkewVariable names the environment variable with the seconds by which the
// wall clock of a program is wrong that was built with the overlay of
// WriteOverlay. Durations and timers of the program stay right.
const SkewVariable = "CASEMATE_TEST_CLOCK_SKEW"

// The parts of the standard library's time.go that the overlay changes. Go asks
// the kernel for the time without a system call or a C library in between, so
// from outside of a program its clock cannot be changed.
const (
	importsOfTime = "import (\n"
	bodyOfNow     = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	skewedImports = importsOfTime + "\t\"syscall\"\n"
	skewedBody    = bodyOfNow + "\tsec += testSkew\n"
	skewCode      = `
// testSkew is how many seconds the wall clock is off.
var testSkew = readTestSkew()

func readTestSkew() int64 {
	s, _ := syscall.Getenv("` + SkewVariable + `")
	sign, n := int64(1), int64(0)
	for _, c := range []byte(s) {
		if c == '-' {
			sign = -1
			continue
		}
		n = 10*n + int64(c-'0')
	}
	return sign * n
}
`
)

// WriteOverlay writes to dir what "go build -overlay FILE" needs for a program
// whose wall clock can be set wrong, and returns FILE.
func WriteOverlay(dir string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("fleet: go env: %w", err)
	}
	original := filepath.Join(string(bytes.TrimSpace(out)), "src", "time", "time.go")
	src, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("fleet: the standard library: %w", err)
	}
	changed, err := skewed(string(src))
	if err != nil {
		return "", fmt.Errorf("fleet: %s: %w", original, err)
	}
	replacement, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err != nil {
		return "", fmt.Errorf("fleet: overlay: %w", err)
	}
	for file, content := range map[string][]byte{replacement: []byte(changed), overlay: list} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return "", fmt.Errorf("fleet: overlay: %w", err)
		}
	}
	return overlay, nil
}

// skewed returns the source of time.go with a wall clock that can be off.
func skewed(src string) (string, error) {
	for _, part := range []string{importsOfTime, bodyOfNow} {
		if strings.Count(src, part) != 1 {
			return "", fmt.Errorf("this Go writes %q in another way: change the parts in host/internal/fleet/clock.go", part)
		}
	}
	src = strings.Replace(src, importsOfTime, skewedImports, 1)
	return strings.Replace(src, bodyOfNow, skewedBody, 1) + skewCode, nil
}
