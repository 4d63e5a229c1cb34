package processor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
	"github.com/casemate/casemate/host/upstream"
)

// errStreamed: an event stream came where there is none.
var errStreamed = errors.New("processor: an event stream")

// answer is what one target answers to a call: what of it the client is shown
// and what the host learns of it.
type answer interface {
	// event takes one event of a stream and returns the chunks to show.
	event(data []byte) ([][]byte, error)
	// body takes a whole answer, and returns it as the client gets it.
	body(data []byte) ([]byte, error)
	// chunks is a whole answer that was taken, for a client that streams.
	chunks(body []byte) [][]byte
	// whole is what a stream that has ended amounts to. An error: it was cut.
	whole() ([]byte, error)
	// usage is what is known of the tokens so far.
	usage() response.Usage
}

// said is the call in the words of a kind of upstream; it begins its answer.
func (k *call) said(kind upstream.Kind) (loop.Said, error) {
	k.answer = nil
	path, body := strings.TrimPrefix(k.claim.Path, "/v1"), k.body
	id, created := "chatcmpl-"+k.claim.ID.String(), k.claim.Created.Unix()
	switch {
	case isChat(k.claim.Path) && kind == upstream.Responses:
		var err error
		if body, err = k.asResponses(); err != nil {
			return loop.Said{}, err
		}
		path = upstream.ResponsesPath
		k.answer = &translated{translate.NewChatWriter(id, k.claim.Model, created, k.asked, k.claim.ID.String())}
	case isChat(k.claim.Path):
		k.answer = &passed{reader: translate.NewChatPassage(), usageToo: k.asked, id: id, model: k.claim.Model, created: created}
	case isText(k.claim.Path):
		k.answer = &passedText{usageToo: k.asked, id: "cmpl-" + k.claim.ID.String(), model: k.claim.Model, created: created}
	default:
		k.answer = &vectors{}
	}
	return loop.Said{Path: path, Body: body, OnData: k.event}, nil
}

// serves reports why targets of a kind cannot serve the call.
func (k *call) serves(kind upstream.Kind) error {
	if !isChat(k.claim.Path) || kind != upstream.Responses {
		return nil
	}
	_, err := k.asResponses()
	return err
}

// asResponses is the client's chat completion in the words of Responses.
func (k *call) asResponses() ([]byte, error) {
	if k.translated == nil {
		body, err := translate.ChatAsResponses(k.claim.Body)
		k.translated = &translation{body, err}
	}
	return k.translated.body, k.translated.err
}

// event shows one event of a streamed answer.
func (k *call) event(data []byte) error {
	chunks, err := k.answer.event(data)
	if err != nil {
		return fmt.Errorf("%w: %w", upstream.ErrInvalid, err)
	}
	if k.claim.Stream {
		k.show(chunks)
	}
	return nil
}

// passed is a chat completion that goes to the client as it is.
type passed struct {
	reader    *translate.ChatPassage
	usageToo  bool // the client asked for the usage chunk
	id, model string
	created   int64
	one       [1][]byte
}

func (a *passed) event(data []byte) ([][]byte, error) {
	usage, err := a.reader.Chunk(data)
	if err != nil || usage && !a.usageToo {
		return nil, err
	}
	a.one[0] = append([]byte(nil), data...)
	return a.one[:], nil
}

func (a *passed) body(data []byte) ([]byte, error) { return data, a.reader.Body(data) }

func (a *passed) chunks(body []byte) [][]byte { return asChunks(body, a.usageToo) }

func (a *passed) whole() ([]byte, error) {
	out, err := a.reader.Output()
	if err != nil {
		return nil, err
	}
	return translate.ChatCompletion(out, a.id, a.model, a.created), nil
}

func (a *passed) usage() response.Usage { return a.reader.Usage() }

// translated is a chat completion that an upstream served that speaks Responses.
type translated struct{ writer *translate.ChatWriter }

func (a *translated) event(data []byte) ([][]byte, error) { return a.writer.Event(data) }

func (a *translated) body(data []byte) ([]byte, error) {
	if err := a.writer.Body(data); err != nil {
		return nil, err
	}
	return a.writer.Completion()
}

func (a *translated) chunks([]byte) [][]byte { return a.writer.Chunks() }

func (a *translated) whole() ([]byte, error) { return a.writer.Completion() }

func (a *translated) usage() response.Usage { return a.writer.Usage() }

// passedText is a legacy completion that goes to the client as it is.
type passedText struct {
	reader    translate.TextPassage
	usageToo  bool
	id, model string
	created   int64
}

func (a *passedText) event(data []byte) ([][]byte, error) {
	usage, err := a.reader.Chunk(data)
	if err != nil || usage && !a.usageToo {
		return nil, err
	}
	return [][]byte{append([]byte(nil), data...)}, nil
}

func (a *passedText) body(data []byte) ([]byte, error) {
	_, err := a.reader.Chunk(data)
	return data, err
}

// chunks: a text completion and a chunk of one are the same.
func (a *passedText) chunks(body []byte) [][]byte { return [][]byte{body} }

func (a *passedText) whole() ([]byte, error) { return a.reader.Completion(a.id, a.model, a.created) }

func (a *passedText) usage() response.Usage { return a.reader.Usage() }

// vectors is an answer that is never streamed, embeddings: not a byte of it is
// changed.
type vectors struct{ tokens response.Usage }

func (a *vectors) event([]byte) ([][]byte, error) { return nil, errStreamed }

func (a *vectors) body(data []byte) ([]byte, error) {
	var b struct {
		Usage struct {
			Input  int64 `json:"prompt_tokens"`
			Output int64 `json:"completion_tokens"`
		} `json:"usage"`
	}
	if json.Unmarshal(data, &b) == nil {
		a.tokens = response.Usage{Input: b.Usage.Input, Output: b.Usage.Output}
	}
	return data, nil
}

func (a *vectors) chunks(body []byte) [][]byte { return [][]byte{body} }

func (a *vectors) whole() ([]byte, error) { return nil, errStreamed }

func (a *vectors) usage() response.Usage { return a.tokens }
