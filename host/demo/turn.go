package demo

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Call is one tool call of a Turn.
type Call struct {
	ID        string // "": made from the request's body and the call's index
	Name      string
	Arguments string // as the model writes them; broken JSON is legal here
}

// Usage is what a Turn reports, in tokens.
type Usage struct {
	Input     int64
	Output    int64
	Cached    int64
	Reasoning int64
}

// Script returns the answer to request n, counted from 0 in order of arrival.
// Calls never overlap: to hold one answer back, use Turn.Gate.
type Script func(n int, r Request) Turn

// Turn is one answer. The zero Turn is an empty text. On /v1/embeddings only
// the fields from Status on count; the vectors follow from the input.
type Turn struct {
	Text       string
	Reasoning  string // before the text: as reasoning_content, or as the summary of a reasoning item
	Encrypted  string // of the reasoning item of a response that is asked for it
	Refusal    string
	Calls      []Call
	Finish     string // finish_reason; "": "tool_calls" with calls, else "stop"; "-": none at all, nor the last event of a response
	Usage      *Usage // nil: counted, a word being a token
	ChunkRunes int    // runes of text (bytes of Raw) in one chunk; 0: 8, more for a long text (all of Raw)

	Status      int    // HTTP status; 0: 200
	ErrorBody   string // body in place of an answer; with status 200, an error inside a 200
	Failure     string // code of an error that the answer ends with, after what it says: response.failed
	ErrorEvent  bool   // the Failure of a streamed response is an event "error" instead
	RetryAfter  string // Retry-After header
	ContentType string // in place of the right one
	Raw         []byte // body in place of an answer, sent as it is
	CRLF        bool   // event stream with CRLF line ends
	NoDone      bool   // event stream of a chat completion that ends without [DONE]; a response's has none

	Delay      time.Duration // before the head
	ChunkDelay time.Duration // before each chunk
	// CutAfter drops the connection after so many chunks, the one with the role
	// included, or so many events of a response; of an answer that is not streamed, in its middle. < 0: before
	// the head; 0: never.
	CutAfter int
	// Gate holds the answer back until it is closed or yields a value: before
	// the head, or after GateAfter chunks when that is more than 0.
	Gate      <-chan struct{}
	GateAfter int

	// Ended, if not nil, is called when the server is done with the answer and
	// before the client can see its end: whole is false when the client went away
	// first, or the Turn cut the answer.
	Ended func(whole bool)
}

// usage is what the Turn reports, or else a count of words.
func (t Turn) usage(q request) Usage {
	if t.Usage != nil {
		return *t.Usage
	}
	u := Usage{Reasoning: words(t.Reasoning)}
	for _, m := range q.Messages {
		u.Input += words(m.text())
	}
	u.Output = words(t.Text) + words(t.Refusal) + u.Reasoning
	for _, c := range t.Calls {
		u.Output += 1 + words(c.Arguments)
	}
	return u
}

// chunkRunes is how many runes a chunk of the Turn has: a long text comes in at
// most a few hundred.
func (t Turn) chunkRunes() int {
	if t.ChunkRunes > 0 {
		return t.ChunkRunes
	}
	return max(8, utf8.RuneCountInString(t.Text)/256)
}

// nameCalls returns the calls with an id each.
func nameCalls(calls []Call, body []byte) []Call {
	calls = slices.Clone(calls)
	for i := range calls {
		if calls[i].ID == "" {
			calls[i].ID = fmt.Sprintf("call_%s_%d", digest(body), i)
		}
	}
	return calls
}

// A failure is the error that a Turn ends with.
type failure struct {
	Type    string  `json:"type,omitempty"`
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param,omitempty"`
}

// failureOf is the Turn's failure as Chat Completions has it.
func failureOf(t Turn) any {
	return map[string]failure{"error": {Type: "server_error", Code: t.Failure, Message: "the demo model failed as it was told to"}}
}

func words(s string) int64 { return int64(len(strings.Fields(s))) }

// split cuts s into pieces of n runes.
func split(s string, n int) []string {
	var pieces []string
	count, start := 0, 0
	for i := range s {
		if count == n {
			pieces = append(pieces, s[start:i])
			count, start = 0, i
		}
		count++
	}
	if start < len(s) {
		pieces = append(pieces, s[start:])
	}
	return pieces
}

// digest names a request: the ids made from it are the same in every process
// and differ between the turns of a conversation.
func digest(b []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash never fails
	return fmt.Sprintf("%016x", h.Sum64())
}
