package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

const (
	// demoTime bounds the whole demo.
	demoTime = 2 * time.Minute
	// demoAnswer must be in the text: only the calculator knows it.
	demoQuestion = "What is 6*7?"
	demoAnswer   = "42"
	// maxEvent is the most bytes of one line of the stream.
	maxEvent = 8 << 20
	// shown is how much of an event's data is printed.
	shown = 160
)

// demo starts a host, asks it one question and stops it.
func demo(ctx context.Context, a app, _ options, _ []string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "casemate-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := demoConfig(a, dir)
	if err != nil {
		return err
	}
	h, err := host.New(ctx, c)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(run) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	return ask(ctx, a.stdout, "http://"+reachable(h.Addr()))
}

// demoConfig is the configuration of no file, without its fixed port and store.
func demoConfig(a app, dir string) (host.Config, error) {
	log := hclog.New(&hclog.LoggerOptions{Name: "casemate", Level: hclog.Error, Output: a.stderr})
	c, err := host.LoadConfig("", nil, log)
	if err != nil {
		return host.Config{}, err
	}
	calculator := func(p host.Plugin) bool { return filepath.Base(p.File) == "calculator.wasm" }
	if !slices.ContainsFunc(c.Plugins, calculator) {
		return host.Config{}, errors.New("no calculator.wasm in build/wasm, here or beside the program: make build makes it")
	}
	c.Listen = "127.0.0.1:0"
	c.Store = "sqlite:" + filepath.Join(dir, "demo.db")
	return c, nil
}

// ask posts the question and prints the events of the answer.
func ask(ctx context.Context, w io.Writer, base string) error {
	body := fmt.Sprintf(`{"model":"demo","stream":true,"input":%q}`, demoQuestion)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/responses", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	fmt.Fprintf(w, "POST %s/v1/responses %s\n\n", base, body)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("the host answered %s: %s", resp.Status, text)
	}
	got, err := readEvents(resp.Body, w)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n", got.text)
	return got.check()
}

// answer is what the demo looks for in a stream.
type answer struct {
	text      string // of the message
	calls     int    // of tools that completed
	completed bool
}

// event is one event of the stream, as far as the demo reads it.
type event struct {
	Type string `json:"type"`
	Text string `json:"text"`
	Item struct {
		Type   string `json:"type"`
		Status string `json:"status"`
	} `json:"item"`
}

// readEvents prints each event of an SSE stream on one line.
func readEvents(r io.Reader, w io.Writer) (answer, error) {
	var got answer
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		data = strings.TrimSpace(data)
		if !ok || data == "[DONE]" {
			continue
		}
		var e event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return got, fmt.Errorf("an event is not JSON: %w", err)
		}
		fmt.Fprintf(w, "%-38s %s\n", e.Type, cut(data))
		switch {
		case e.Type == "response.output_text.done":
			got.text = e.Text
		case e.Type == "response.output_item.done" && e.Item.Type == "mcp_call" && e.Item.Status == "completed":
			got.calls++
		case e.Type == "response.completed":
			got.completed = true
		}
	}
	if err := lines.Err(); err != nil {
		return got, fmt.Errorf("the stream broke: %w", err)
	}
	return got, nil
}

// check tells what is wrong with the answer, if anything is.
func (a answer) check() error {
	switch {
	case !a.completed:
		return errors.New("the response did not complete")
	case a.calls == 0:
		return errors.New("the answer came without a tool")
	case !strings.Contains(a.text, demoAnswer):
		return fmt.Errorf("%q does not hold %s", a.text, demoAnswer)
	}
	return nil
}

func cut(s string) string {
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
