package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"casemate": main, "curl": curl})
}

// TestScripts runs the command line as its users do; see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":  await,
			"exits":  exits,
			"signal": sendSignal,
		},
	})
}

// patience bounds every wait of a test.
const patience = 2 * time.Minute

// awaitFile waits until the file holds a match of pattern.
func awaitFile(file, pattern string) error {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	giveUp := time.After(patience)
	for {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if re.Match(text) {
			return nil
		}
		select {
		case <-tick.C:
		case <-giveUp:
			return fmt.Errorf("%s holds no match of %s:\n%s", file, pattern, text)
		}
	}
}

// await waits for a pattern in a file: await FILE PATTERN.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE PATTERN")
	}
	ts.Check(awaitFile(ts.MkAbs(args[0]), args[1]))
}

// exits runs a program that must end with a code: exits CODE PROGRAM ARG…
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("got %v, want exit code %s", err, args[0])
	}
}

// sendSignal signals the process whose id is in a file: signal NAME FILE.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal TERM|INT|HUP FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, signals[args[0]]))
}

// curl is as much of curl as the printed line uses, so that the line can be
// run where there is no curl.
func curl() {
	err := func() error {
		var url, body string
		header := http.Header{}
		for args := os.Args[1:]; len(args) > 0; args = args[1:] {
			switch {
			case args[0] == "-sS":
			case len(args) > 1 && args[0] == "-H":
				name, value, _ := strings.Cut(args[1], ": ")
				header.Set(name, value)
				args = args[1:]
			case len(args) > 1 && args[0] == "-d":
				body, args = args[1], args[1:]
			case strings.HasPrefix(args[0], "http://"):
				url = args[0]
			default:
				return fmt.Errorf("unknown argument %q", args[0])
			}
		}
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
		_, err = io.Copy(os.Stdout, resp.Body)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}
