package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tokens"
)

// Files knows the uploaded files.
type Files interface {
	// Content returns a file of the tenant. The error wraps queue.ErrNotFound
	// where there is none.
	Content(ctx context.Context, tenant, id string) (name, mediaType string, data []byte, err error)
}

// context resolves what stands before the input of a turn, and what its input
// refers to.
func (t *turn) context(ctx context.Context) error {
	var err error
	switch req := t.req; {
	case req.PreviousResponseID != "":
		t.brief.Context, err = t.previous(ctx, req.PreviousResponseID)
	case req.Conversation != "":
		err = t.conversation(ctx, req.Conversation)
	}
	if err != nil {
		return err
	}
	if err := t.references(ctx); err != nil {
		return err
	}
	return t.files(ctx)
}

// previous returns the context that a response hands to its child.
func (t *turn) previous(ctx context.Context, id string) ([]response.Item, error) {
	if t.cached != nil {
		if items, ok := t.cached(id); ok {
			return items, nil
		}
	}
	return t.ancestors(ctx, id)
}

// ancestors is previous for a stored response.
func (t *turn) ancestors(ctx context.Context, previous string) ([]response.Item, error) {
	missing := &response.BadRequest{
		Param: "previous_response_id", Code: "previous_response_not_found",
		Message: "There is no completed, stored response with that id.",
	}
	id, err := responseID(previous)
	if err != nil {
		return nil, missing
	}
	rec, err := t.a.Store.Get(ctx, t.tenant.Name, id, store.Parts{Body: true, Result: true})
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return nil, missing
	case err != nil:
		return nil, fmt.Errorf("api: previous response: %w", err)
	case !rec.Store || rec.Path != pathResponses:
		return nil, missing
	case !rec.State.Final():
		return nil, &response.BadRequest{
			Param: "previous_response_id", Code: "previous_response_in_progress",
			Message: "The previous response has not ended yet.",
		}
	case rec.State != queue.Completed || rec.Result == nil:
		return nil, missing
	}
	brief, err := response.DecodeBrief(rec.Body)
	if err != nil {
		return nil, fmt.Errorf("api: previous response: %w", err)
	}
	items, err := response.Ancestor(brief, rec.Result.Body)
	if err != nil {
		return nil, fmt.Errorf("api: previous response: %w", err)
	}
	return items, nil
}

// conversationID reads the public id of a conversation.
func conversationID(s string) (queue.ID, error) {
	hex, ok := strings.CutPrefix(s, conversationPrefix)
	if !ok {
		return queue.ID{}, queue.ErrNotFound
	}
	id, err := queue.ParseID(hex)
	if err != nil {
		return queue.ID{}, queue.ErrNotFound // a malformed id is nobody's
	}
	return id, nil
}

// itemsPage is how many items of a conversation are read at a time.
const itemsPage = 500

// conversation reads the items of a conversation as its newest version has them.
// Should another version come meanwhile, the insert is refused for it.
func (t *turn) conversation(ctx context.Context, public string) error {
	id, err := conversationID(public)
	if err != nil {
		return notThere("conversation", "conversation", err)
	}
	tenant := t.tenant.Name
	head, err := t.a.Store.Conversation(ctx, tenant, id)
	if err != nil {
		return readError(err, notThere("conversation", "conversation", err))
	}
	t.brief.Conversation, t.join = id.String(), &store.Join{Conversation: id, Version: head.Version}
	size, page := int64(0), store.Page{Limit: itemsPage, Ascending: true}
	for more := true; more; {
		var items []store.Item
		if items, more, err = t.a.Store.Items(ctx, tenant, id, page); err != nil {
			return readError(err, notThere("conversation", "conversation", err))
		}
		for _, raw := range items {
			var it response.Item
			if err := it.UnmarshalJSON(raw.Data); err != nil {
				return fmt.Errorf("api: conversation %s: item %s: %w", id, raw.ID, err)
			}
			size += int64(len(raw.Data))
			t.brief.Context = append(t.brief.Context, it)
			page.After = raw.ID
		}
		if size > t.a.MaxBodyBytes {
			return t.tooLarge("conversation")
		}
		more = more && len(items) > 0
	}
	return nil
}

// readError is missing where err says that there is no such thing.
func readError(err error, missing error) error {
	if errors.Is(err, queue.ErrNotFound) {
		return missing
	}
	return fmt.Errorf("api: read what the request refers to: %w", err)
}

// maxReferred is how many responses the references of a request may lead to.
const maxReferred = 1000

// referred is what the references of an input lead to.
type referred struct {
	wanted map[string]bool // the ids that are referred to
	found  map[queue.ID]map[string]response.Item
	bytes  int64 // of found
}

// references puts the items that references of the input stand for in their
// place. One to an item that is there anyhow, in the context or before it, adds
// nothing, and is left out.
func (t *turn) references(ctx context.Context) error {
	r := referred{wanted: map[string]bool{}, found: map[queue.ID]map[string]response.Item{}}
	input, there := make([]response.Item, 0, len(t.req.Input)), map[string]bool{}
	for _, it := range t.brief.Context {
		there[it.ID] = true
	}
	for _, it := range t.req.Input {
		if it.References() && !there[it.ID] {
			r.wanted[it.ID] = true
		}
	}
	for i, it := range t.req.Input {
		if it.References() {
			if there[it.ID] {
				continue
			}
			var err error
			if it, err = t.reference(ctx, &r, fmt.Sprintf("input[%d]", i), it.ID); err != nil {
				return err
			}
		}
		there[it.ID] = true
		input = append(input, it)
	}
	t.req.Input = input
	return nil
}

// reference looks an item up in the response that its id was made in. Of each
// response that is read, r keeps what is referred to.
func (t *turn) reference(ctx context.Context, r *referred, param, id string) (response.Item, error) {
	missing := &response.BadRequest{Param: param, Code: "item_not_found", Message: "There is no item with that id in a stored response."}
	origin, ok := response.ItemResponse(id)
	if !ok {
		return response.Item{}, missing
	}
	if r.found[origin] == nil {
		if len(r.found) == maxReferred {
			return response.Item{}, &response.BadRequest{
				Param: param, Code: "invalid_value",
				Message: fmt.Sprintf("References may lead to items of %d responses: send previous_response_id, or the items themselves.", maxReferred),
			}
		}
		items, err := t.itemsOf(ctx, origin)
		if err != nil {
			return response.Item{}, err
		}
		if r.keep(origin, items); r.bytes > t.a.MaxBodyBytes {
			return response.Item{}, t.tooLarge("input")
		}
	}
	item, ok := r.found[origin][id]
	if !ok {
		return response.Item{}, missing
	}
	return item, nil
}

// keep takes from the items of a response those that are referred to; where two
// have one id, the first.
func (r *referred) keep(origin queue.ID, items []response.Item) {
	kept := map[string]response.Item{}
	for _, it := range items {
		if _, there := kept[it.ID]; r.wanted[it.ID] && !there && !it.References() {
			kept[it.ID] = it
			r.bytes += int64(len(it.Raw))
		}
	}
	r.found[origin] = kept
}

// itemsOf returns the input and output items of a response; none where the
// tenant has no such response, or it has not ended.
func (t *turn) itemsOf(ctx context.Context, id queue.ID) ([]response.Item, error) {
	rec, err := t.a.Store.Get(ctx, t.tenant.Name, id, store.Parts{Body: true, Result: true})
	switch {
	case errors.Is(err, queue.ErrNotFound), err == nil && (!rec.Store || rec.Path != pathResponses):
		if t.cached != nil {
			items, _ := t.cached(responsePrefix + id.String())
			return items, nil
		}
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("api: item reference: %w", err)
	case !rec.State.Final() || rec.Result == nil:
		return nil, nil
	}
	brief, err := response.DecodeBrief(rec.Body)
	if err != nil {
		return nil, fmt.Errorf("api: item reference: %w", err)
	}
	output, err := response.OutputItems(rec.Result.Body)
	if err != nil {
		return nil, nil //nolint:nilerr // what a failed response ended with is no Response object: it has no items
	}
	return append(append([]response.Item(nil), brief.Request.Input...), output...), nil
}

// files puts uploaded files in the place of their ids.
func (t *turn) files(ctx context.Context) error {
	size := int64(0)
	load := func(param, id string) (response.File, error) {
		missing := &response.BadRequest{Param: param, Code: "file_not_found", Message: "There is no file with that id."}
		if t.a.Files == nil {
			return response.File{}, missing
		}
		name, mediaType, data, err := t.a.Files.Content(ctx, t.tenant.Name, id)
		if err != nil {
			return response.File{}, readError(err, missing)
		}
		if size += int64(len(data)); size > t.a.MaxBodyBytes {
			return response.File{}, t.tooLarge(param)
		}
		if mediaType == "" {
			mediaType = "application/octet-stream"
		}
		return response.File{Name: name, URL: "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(data)}, nil
	}
	var err error
	for i, it := range t.req.Input {
		if t.req.Input[i], err = response.ResolveFiles(it, fmt.Sprintf("input[%d]", i), load); err != nil {
			return err
		}
	}
	if t.join == nil {
		return nil // what other responses were made from has its files
	}
	for i, it := range t.brief.Context {
		if t.brief.Context[i], err = response.ResolveFiles(it, "conversation", load); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) tooLarge(param string) error {
	return &response.BadRequest{
		Param: param, Code: "context_length_exceeded",
		Message: fmt.Sprintf("The request and what it refers to are larger than %d bytes together.", t.a.MaxBodyBytes),
	}
}

// fit holds the input, and the output that the request asks for, against the
// window of the model, where that is known, and drops what is oldest where the
// request allows it.
func (t *turn) fit() error {
	window := t.a.Models.Window(t.req.Model)
	if window <= 0 {
		return nil
	}
	if n := t.req.MaxOutputTokens; n != nil {
		if *n >= int64(window) {
			return &response.BadRequest{
				Param: "max_output_tokens", Code: "context_length_exceeded",
				Message: fmt.Sprintf("The model takes %d tokens, those of its output among them: max_output_tokens leaves none for the input.", window),
			}
		}
		window -= int(*n)
	}
	if t.small(window) {
		return nil
	}
	limit := max(0, window-t.overhead())
	count := func(it response.Item) int { return t.a.tokens.Item(it.Raw) }
	dropping := t.brief
	if !dropping.Fit(limit, count) || dropping.Dropped != nil && t.req.Truncation != "auto" {
		return &response.BadRequest{
			Param: "input", Code: "context_length_exceeded",
			Message: fmt.Sprintf("The input is longer than the %d tokens that the model takes beside its output: shorten it, or have what is oldest dropped by truncation: auto.", window),
		}
	}
	t.brief = dropping
	return nil
}

// small reports whether a turn surely fits into the window, by its bytes alone:
// no token of a text has less than one, and what is no text is counted.
func (t *turn) small(window int) bool {
	size := len(t.body)
	for _, tool := range t.tools {
		size += len(tool.Name) + len(tool.Description) + len(tool.Parameters) + tokens.PerTool
	}
	for _, it := range t.brief.Items() {
		for _, media := range []string{"image", "file", "audio"} {
			if bytes.Contains(it.Raw, []byte(media)) {
				return false
			}
		}
		size += len(it.Raw)
	}
	return size <= window
}
