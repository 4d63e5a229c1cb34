package abi_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/casemate/casemate/sdk/abi"
)

type opVector struct {
	Name        string `json:"name"`
	Op          string `json:"op"`
	Request     string `json:"request"`
	RequestOut  string `json:"request_out"`
	RequestBody string `json:"request_body"`
	Reply       string `json:"reply"`
	ReplyOut    string `json:"reply_out"`
	ReplyBody   string `json:"reply_body"`
}

type opError struct {
	Op     string `json:"op"`
	Status int    `json:"status"`
	Error  string `json:"error"`
}

// heads holds an empty request head and reply head of each op.
func heads() map[string]func() (request, reply any) {
	kv := func() (any, any) { return new(abi.KVHead), new(abi.KVReply) }
	return map[string]func() (any, any){
		abi.OpKVGet: kv, abi.OpKVPut: kv, abi.OpKVDelete: kv,
		abi.OpKVList:    func() (any, any) { return new(abi.KVListHead), new(abi.KVReply) },
		abi.OpHTTPFetch: func() (any, any) { return new(abi.HTTPHead), new(abi.HTTPReply) },
		abi.OpToolCall:  func() (any, any) { return new(abi.ToolCallHead), new(abi.ToolReply) },
		abi.OpTimeNow:   func() (any, any) { return nil, new(abi.TimeReply) },
		abi.OpRand:      func() (any, any) { return new(abi.RandHead), new(abi.ReplyHead) },
	}
}

func TestOpVectors(t *testing.T) {
	blank, seen := heads(), map[string]bool{}
	for _, o := range load(t).Ops {
		if blank[o.Op] == nil {
			t.Errorf("%s: unknown op %s", o.Name, o.Op)
			continue
		}
		seen[o.Op] = true
		request, reply := blank[o.Op]()
		checkHead(t, o.Name+": request", unhex(t, o.Request), unhex(t, o.RequestOut), unhex(t, o.RequestBody), request)
		checkHead(t, o.Name+": reply", unhex(t, o.Reply), unhex(t, o.ReplyOut), unhex(t, o.ReplyBody), reply)
	}
	for op := range blank {
		if !seen[op] {
			t.Errorf("no vector of %s", op)
		}
	}
}

// checkHead reads the head of a frame into value, which is nil for an op
// without one, and writes it again.
func checkHead(t *testing.T, name string, frame, want, wantBody []byte, value any) {
	t.Helper()
	head, body, err := abi.DecodeFrame(frame)
	if err != nil || !bytes.Equal(body, wantBody) {
		t.Errorf("%s: got body %x, %v; want %x", name, body, err, wantBody)
		return
	}
	if value == nil {
		if len(head) != 0 {
			t.Errorf("%s: head %q, want none", name, head)
		}
		return
	}
	if err := json.Unmarshal(head, value); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if got, err := abi.CanonicalJSON(text); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %s, %v; want %s", name, got, err, want)
	}
}

func TestOpErrorVectors(t *testing.T) {
	words := map[string]int{
		abi.ErrorRequest: abi.StatusBadRequest, abi.ErrorKey: abi.StatusBadRequest, abi.ErrorTTL: abi.StatusBadRequest,
		abi.ErrorCondition: abi.StatusNotMatched, abi.ErrorValue: abi.StatusTooLarge,
		abi.ErrorManyWrites: abi.StatusInsufficient, abi.ErrorQuota: abi.StatusInsufficient, abi.ErrorNoTool: abi.StatusNoEntry,
		abi.HTTPInvalidURL: abi.StatusBadRequest, abi.HTTPInvalidMethod: abi.StatusBadRequest, abi.HTTPInvalidHeader: abi.StatusBadRequest,
		abi.HTTPRequestTooLarge: abi.StatusTooLarge, abi.HTTPDenied: abi.StatusDenied, abi.HTTPSecretDenied: abi.StatusDenied,
		abi.HTTPNetwork: abi.StatusBadGateway, abi.HTTPTooManyRedirects: abi.StatusBadGateway, abi.HTTPResponseTooLarge: abi.StatusBadGateway,
		abi.HTTPTimeout: abi.StatusTimeout,
	}
	seen := map[string]bool{}
	for _, e := range load(t).OpErrors {
		seen[e.Error] = true
		if status, ok := words[e.Error]; !ok || status != e.Status || heads()[e.Op] == nil {
			t.Errorf("%s %d %s: the word goes with %d", e.Op, e.Status, e.Error, status)
		}
	}
	for word := range words {
		if !seen[word] {
			t.Errorf("no vector of %s", word)
		}
	}
}
