package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/conversations"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

func (c client) input(text string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: c.model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(text)}}
}

func TestToolLoop(t *testing.T) {
	ctx, c := host(t, "demo")
	p := c.input("call weather {\"town\":\"Oslo\"}\ncall calculator {\"expression\":\"6*7\"}")
	weather := responses.ToolParamOfFunction("weather", map[string]any{"type": "object"}, false)
	p.Tools = []responses.ToolUnionParam{weather}
	first, err := c.api.Responses.New(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	var call responses.ResponseOutputItemUnion
	for _, item := range first.Output {
		if item.Type == "function_call" {
			call = item
		}
	}
	if call.Name != "weather" || call.CallID == "" {
		t.Fatalf("got %s, want a call of weather", first.RawJSON())
	}
	output := responses.ResponseInputItemParamOfFunctionCallOutput("rain")
	output.OfFunctionCallOutput.CallID = openai.String(call.CallID)
	second, err := c.api.Responses.New(ctx, responses.ResponseNewParams{
		Model: c.model, PreviousResponseID: openai.String(first.ID), Tools: []responses.ToolUnionParam{weather},
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{output}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if text := second.OutputText(); !strings.Contains(text, "rain") || !strings.Contains(text, "42") {
		t.Errorf("got %q, want rain and 42", text)
	}
}

func TestInputItemsAndDelete(t *testing.T) {
	ctx, c := host(t, "demo")
	r, err := c.api.Responses.New(ctx, responses.ResponseNewParams{
		Model: c.model, Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			responses.ResponseInputItemParamOfMessage("one", responses.EasyInputMessageRoleUser),
			responses.ResponseInputItemParamOfMessage("two", responses.EasyInputMessageRoleUser),
			responses.ResponseInputItemParamOfMessage("three", responses.EasyInputMessageRoleUser),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := c.api.Responses.InputItems.ListAutoPaging(ctx, r.ID, responses.InputItemListParams{Limit: openai.Int(2), Order: "asc"})
	seen := map[string]bool{}
	for pages.Next() {
		seen[pages.Current().ID] = true
	}
	if err := pages.Err(); err != nil || len(seen) != 3 {
		t.Errorf("got %d items, %v, want 3", len(seen), err)
	}
	if err := c.api.Responses.Delete(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.api.Responses.Get(ctx, r.ID, responses.ResponseGetParams{}); err == nil {
		t.Error("it is still there")
	}
}

func TestConversation(t *testing.T) {
	ctx, c := host(t, "demo")
	conversation, err := c.api.Conversations.New(ctx, conversations.ConversationNewParams{})
	if err != nil {
		t.Fatal(err)
	}
	p := c.params()
	p.Conversation = responses.ResponseNewParamsConversationUnion{OfString: openai.String(conversation.ID)}
	r, err := c.api.Responses.New(ctx, p)
	check(t, r, err)
	items := c.api.Conversations.Items.ListAutoPaging(ctx, conversation.ID, conversations.ItemListParams{Order: "asc"})
	var types []string
	for items.Next() {
		types = append(types, items.Current().Type)
	}
	if err := items.Err(); err != nil || fmt.Sprint(types) != "[message mcp_call message]" {
		t.Errorf("got %v, %v", types, err)
	}
	if gone, err := c.api.Conversations.Delete(ctx, conversation.ID); err != nil || !gone.Deleted {
		t.Errorf("delete: %v, %v", gone, err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	ctx, c := host(t, "demo")
	key := option.WithHeader("Idempotency-Key", fmt.Sprint("go-", time.Now().UnixNano()))
	first, err := c.api.Responses.New(ctx, c.params(), key)
	check(t, first, err)
	again, err := c.api.Responses.New(ctx, c.params(), key)
	check(t, again, err)
	if first.ID != again.ID {
		t.Errorf("%s and %s: it ran twice", first.ID, again.ID)
	}
}

func TestFilesAndBatches(t *testing.T) {
	ctx, c := host(t, "demo")
	var lines bytes.Buffer
	for n := range 10 {
		fmt.Fprintf(&lines, `{"custom_id":"line-%d","method":"POST","url":"/v1/responses","body":{"model":"demo","input":"What is 6*%d?"}}`+"\n", n, n)
	}
	want := lines.String()
	file, err := c.api.Files.New(ctx, openai.FileNewParams{File: openai.File(&lines, "lines.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, c, file.ID); got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
	batch, err := c.api.Batches.New(ctx, openai.BatchNewParams{
		InputFileID: file.ID, Endpoint: openai.BatchNewParamsEndpointV1Responses, CompletionWindow: openai.BatchNewParamsCompletionWindow24h,
	})
	for err == nil && (batch.Status == "validating" || batch.Status == "in_progress" || batch.Status == "finalizing") {
		<-time.After(100 * time.Millisecond)
		batch, err = c.api.Batches.Get(ctx, batch.ID)
	}
	if err != nil || batch.Status != "completed" || batch.RequestCounts.Completed != 10 {
		t.Fatalf("got %v, %v", batch.RawJSON(), err)
	}
	n := 0
	for line := range strings.Lines(content(t, c, batch.OutputFileID)) {
		var out struct {
			CustomID string `json:"custom_id"`
			Response struct {
				StatusCode int                `json:"status_code"`
				Body       responses.Response `json:"body"`
			} `json:"response"`
		}
		if err := json.Unmarshal([]byte(line), &out); err != nil {
			t.Fatal(err)
		}
		if out.CustomID != fmt.Sprint("line-", n) || out.Response.StatusCode != 200 || !strings.Contains(out.Response.Body.OutputText(), fmt.Sprint(6*n)) {
			t.Errorf("line %d: %s", n, line)
		}
		n++
	}
	if n != 10 {
		t.Errorf("got %d lines, want 10", n)
	}
}

func content(t *testing.T, c client, file string) string {
	t.Helper()
	resp, err := c.api.Files.Content(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
