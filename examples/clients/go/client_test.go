package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// host returns a client of the host at CASEMATE_TEST_URL. That host offers
// model demo with the calculator plugin, and model slow, which never answers.
// The tests of host/cmd/casemate start one and run these tests against it.
func host(t *testing.T, model string) (context.Context, client) {
	t.Helper()
	url := os.Getenv("CASEMATE_TEST_URL")
	if url == "" {
		t.Fatal("CASEMATE_TEST_URL is not set: want http://HOST:PORT/v1; go test ./host/cmd/casemate at the root sets it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, client{api: openai.NewClient(option.WithBaseURL(url), option.WithAPIKey("none"), option.WithMaxRetries(0)), model: model}
}

func check(t *testing.T, r *responses.Response, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != responses.ResponseStatusCompleted || !strings.Contains(r.OutputText(), "42") {
		t.Errorf("got %s %q, want completed and 42", r.Status, r.OutputText())
	}
	call := r.Output[0]
	if call.Type != "mcp_call" || call.ServerLabel != "calculator" || call.Output.OfString != "42" {
		t.Errorf("first item is %s, want the call of the calculator and its output 42", call.RawJSON())
	}
}

func checkStream(t *testing.T, text string, types []string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "42") {
		t.Errorf("the deltas make %q, want 42 in it", text)
	}
	at := -1
	for _, want := range []string{"response.created", "response.mcp_call.completed", "response.output_text.delta", "response.completed"} {
		next := slices.Index(types, want)
		if next <= at {
			t.Errorf("%s is missing or too early in %v", want, types)
		}
		at = next
	}
	if at != len(types)-1 {
		t.Errorf("events follow response.completed: %v", types[at+1:])
	}
}

func TestPlain(t *testing.T) {
	ctx, c := host(t, "demo")
	r, err := c.plain(ctx)
	check(t, r, err)
	again, err := c.api.Responses.Get(ctx, r.ID, responses.ResponseGetParams{})
	check(t, again, err)
}

func TestStreamed(t *testing.T) {
	ctx, c := host(t, "demo")
	text, types, err := c.streamed(ctx)
	checkStream(t, text, types, err)
}

func TestBackground(t *testing.T) {
	ctx, c := host(t, "demo")
	r, err := c.background(ctx)
	check(t, r, err)
	text, types, err := c.stored(ctx, r.ID)
	checkStream(t, text, types, err)
}

func TestStoredStreamFromTheMiddle(t *testing.T) {
	ctx, c := host(t, "demo")
	r, err := c.background(ctx)
	check(t, r, err)
	_, all, err := c.stored(ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, err := collect(c.api.Responses.GetStreaming(ctx, r.ID, responses.ResponseGetParams{StartingAfter: openai.Int(2)}))
	if err != nil || !slices.Equal(rest, all[3:]) {
		t.Errorf("after 2: got %v, %v, want %v", rest, err, all[3:])
	}
}

func TestCancel(t *testing.T) {
	ctx, c := host(t, "slow")
	started, err := c.start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	canceled, err := c.cancel(ctx, started.ID)
	if err != nil {
		t.Fatal(err)
	}
	if canceled.Status != responses.ResponseStatusCancelled {
		t.Errorf("got %s, want cancelled", canceled.Status)
	}
	got, err := c.api.Responses.Get(ctx, started.ID, responses.ResponseGetParams{})
	if err != nil || got.Status != responses.ResponseStatusCancelled {
		t.Errorf("later: got %v, %v, want cancelled", got.Status, err)
	}
}

func TestUnknownModelIsATypedError(t *testing.T) {
	ctx, c := host(t, "no-such-model")
	_, err := c.plain(ctx)
	var typed *openai.Error
	if !errors.As(err, &typed) || typed.StatusCode != 404 || typed.Code != "model_not_found" {
		t.Errorf("got %v, want 404 model_not_found", err)
	}
}

func TestAllPrintsEveryAnswer(t *testing.T) {
	ctx, c := host(t, "demo")
	var out bytes.Buffer
	if err := c.all(ctx, &out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "42"); n < 4 {
		t.Errorf("got %d answers, want 4:\n%s", n, out.String())
	}
}
