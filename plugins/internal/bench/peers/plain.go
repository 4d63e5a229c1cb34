package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
)

// native is the work of the guests as a Go function.
type native struct{}

func (native) worker(bool) (call, error) { return answer, nil }
func (native) close() error              { return nil }

func answer(in []byte) ([]byte, error) {
	if len(in) > 0 && in[0] == '"' {
		return append([]byte(nil), in...), nil
	}
	var numbers struct {
		A uint64 `json:"a"`
		B uint64 `json:"b"`
	}
	if err := json.Unmarshal(in, &numbers); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		V      int    `json:"v"`
		Output uint64 `json:"output"`
	}{1, numbers.A + numbers.B})
}

// loopback is the same function in another process on this machine, behind
// HTTP over connections that stay open.
type loopback struct {
	server *exec.Cmd
	stdin  io.Closer // the server ends when it is closed
	url    string
	client *http.Client
}

func newLoopback() (*loopback, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &loopback{server: cmd, stdin: stdin, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	l.url = "http://" + strings.TrimSpace(addr)
	return l, nil
}

func (l *loopback) close() error {
	l.client.CloseIdleConnections()
	l.stdin.Close()
	return l.server.Wait()
}

// serve is the other process: it prints its address and answers until its
// standard input ends.
func serve() error {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := io.ReadAll(r.Body)
		if err == nil {
			in, err = answer(in)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(in)
	}))
	defer s.Close()
	fmt.Println(s.Listener.Addr())
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func (l *loopback) worker(bool) (call, error) {
	return func(in []byte) ([]byte, error) {
		res, err := l.client.Post(l.url, "application/json", bytes.NewReader(in))
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %.100s", res.Status, out)
		}
		return out, err
	}, nil
}
