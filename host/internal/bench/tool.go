package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

const toolInput = `{"v":1,"tool":"calculator","arguments":{"expression":"6*7"},"call":{"response_id":"resp_1","step":"/1","attempt":1,"idempotency_key":"1//1","tenant":"bench","model":"m","deadline_in_ms":30000}}`

// benchTool measures one call of the calculator against a POST over loopback
// HTTP, the cheapest way to call a tool in another process.
func benchTool(ctx context.Context, r *report, file string, n int) error {
	wasm, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%w (make guests builds it)", err)
	}
	m, err := plugins.New(ctx, plugins.Options{})
	if err != nil {
		return err
	}
	defer m.Close(ctx)
	p, err := m.Load(ctx, file, wasm)
	if err != nil {
		return err
	}
	call, err := p50(n, func() error {
		res := p.Call(ctx, plugins.Call{Entry: abi.ExportToolCall, Input: []byte(toolInput)})
		if res.Class != plugins.OK {
			return errors.New("tool call: " + string(res.Class) + ": " + res.Detail)
		}
		return nil
	})
	if err != nil {
		return err
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, `{"v":1,"output":"42"}`)
	}))
	defer srv.Close()
	loopback, err := p50(n, func() error { return post(srv.Client(), srv.URL, toolInput) })
	if err != nil {
		return err
	}
	r.line("tool_call_go_vs_loopback_http", fmt.Sprintf("%.2f", float64(call)/float64(loopback)), "<=0.25", 4*call <= loopback, fmt.Sprintf(
		"calculator (Go, encoding/json), fresh instance a call, %s; loopback HTTP POST %s", micros(call), micros(loopback)))
	return nil
}
