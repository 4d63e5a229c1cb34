// Command go asks a Casemate host in every way that the official OpenAI client
// for Go offers for responses: plain, streamed, in the background. It holds no
// code that is Casemate's own but the address.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:8080/v1", "base URL of the host")
	key := flag.String("key", "none", "API key; a host without tenants needs none")
	model := flag.String("model", "demo", "model to ask")
	flag.Parse()
	c := client{api: openai.NewClient(option.WithBaseURL(*url), option.WithAPIKey(*key)), model: *model}
	if err := c.all(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// question needs the calculator plugin of the host.
const question = "What is 6*7?"

// client asks one model of one host.
type client struct {
	api   openai.Client
	model string
}

// all asks in every way and prints the answers.
func (c client) all(ctx context.Context, w io.Writer) error {
	plain, err := c.plain(ctx)
	if err != nil {
		return fmt.Errorf("plain: %w", err)
	}
	fmt.Fprintf(w, "plain:      %s\n", plain.OutputText())

	streamed, types, err := c.streamed(ctx)
	if err != nil {
		return fmt.Errorf("streamed: %w", err)
	}
	fmt.Fprintf(w, "streamed:   %s (%d events)\n", streamed, len(types))

	background, err := c.background(ctx)
	if err != nil {
		return fmt.Errorf("background: %w", err)
	}
	fmt.Fprintf(w, "background: %s\n", background.OutputText())

	again, types, err := c.stored(ctx, background.ID)
	if err != nil {
		return fmt.Errorf("stored: %w", err)
	}
	fmt.Fprintf(w, "stored:     %s (%d events)\n", again, len(types))
	return nil
}

func (c client) params() responses.ResponseNewParams {
	return responses.ResponseNewParams{
		Model: c.model,
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(question)},
	}
}

// plain waits for the whole response.
func (c client) plain(ctx context.Context) (*responses.Response, error) {
	return c.api.Responses.New(ctx, c.params())
}

// streamed returns the text as it arrived and the types of all events.
func (c client) streamed(ctx context.Context) (string, []string, error) {
	return collect(c.api.Responses.NewStreaming(ctx, c.params()))
}

// background starts a response and asks for it until it has ended.
func (c client) background(ctx context.Context) (*responses.Response, error) {
	r, err := c.start(ctx)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for err == nil && (r.Status == responses.ResponseStatusQueued || r.Status == responses.ResponseStatusInProgress) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
			r, err = c.api.Responses.Get(ctx, r.ID, responses.ResponseGetParams{})
		}
	}
	return r, err
}

// start starts a response in the background.
func (c client) start(ctx context.Context) (*responses.Response, error) {
	p := c.params()
	p.Background = openai.Bool(true)
	return c.api.Responses.New(ctx, p)
}

// stored returns the stream of a response that is stored, from its beginning.
func (c client) stored(ctx context.Context, id string) (string, []string, error) {
	return collect(c.api.Responses.GetStreaming(ctx, id, responses.ResponseGetParams{}))
}

// cancel cancels a response that runs in the background.
func (c client) cancel(ctx context.Context, id string) (*responses.Response, error) {
	return c.api.Responses.Cancel(ctx, id)
}

// stream is what collect needs of the client's streams.
type stream interface {
	Next() bool
	Current() responses.ResponseStreamEventUnion
	Err() error
	Close() error
}

// collect reads a stream to its end.
func collect(s stream) (text string, types []string, err error) {
	defer s.Close()
	for s.Next() {
		e := s.Current()
		types = append(types, e.Type)
		if e.Type == "response.output_text.delta" {
			text += e.Delta
		}
	}
	return text, types, s.Err()
}
