package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// fixed is an upstream that costs as little as one can: it answers every chat
// completion with the same bytes.
type fixed struct {
	url    string
	server *http.Server
}

// tokens is how many chunks with text a streamed answer has.
const tokens = 1000

func startFixed() (*fixed, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	const head = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",`
	whole := []byte(head + `"choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	chunk := func(delta, finish string) []byte {
		return []byte("data: " + `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":` +
			delta + `,"finish_reason":` + finish + "}]}\n\n")
	}
	first, token, last := chunk(`{"role":"assistant","content":""}`, "null"), chunk(`{"content":" word"}`, "null"), chunk(`{}`, `"stop"`)
	usage := []byte("data: " + `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],` +
		fmt.Sprintf(`"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}`, tokens, tokens+1) + "\n\n")
	f := &fixed{url: "http://" + l.Addr().String()}
	f.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(whole) // who left does not matter here
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w)
		send := func(b []byte) {
			_, _ = w.Write(b)
			_ = flush.Flush()
		}
		send(first)
		for range tokens {
			send(token)
		}
		send(last)
		send(usage)
		send([]byte("data: [DONE]\n\n"))
	})}
	go func() { _ = f.server.Serve(l) }() // ends with close
	return f, nil
}

func (f *fixed) close() error { return f.server.Close() }
