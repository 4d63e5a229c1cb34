package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

const (
	// conversationPrefix begins the public id of a conversation.
	conversationPrefix = "conv_"
	// maxAdded is how many items may be added at once.
	maxAdded = 20
	// maxItemID is how many bytes the id of an item may have.
	maxItemID = 128
)

// conversation is a conversation as clients see it.
type conversation struct {
	ID       string          `json:"id"`
	Object   string          `json:"object"`
	Created  int64           `json:"created_at"`
	Metadata json.RawMessage `json:"metadata"`
}

func conversationOf(c store.Conversation) conversation {
	metadata := json.RawMessage(c.Metadata)
	if isNull(metadata) {
		metadata = json.RawMessage("{}")
	}
	return conversation{conversationPrefix + c.ID.String(), "conversation", c.Created.Unix(), metadata}
}

// notThere is the answer where there is no such thing.
func notThere(param, what string, cause error) error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Param: param, Message: "There is no such " + what + ".", cause: cause}
}

// conversationID reads the id of the path's conversation.
func (x *exchange) conversationID() (queue.ID, error) {
	id, err := conversationID(x.path.id)
	if err != nil {
		return queue.ID{}, notThere("conversation_id", "conversation", err)
	}
	return id, nil
}

// conversationError says what an error of the store means here.
func conversationError(id queue.ID, err error) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return notThere("conversation_id", "conversation", err)
	case errors.Is(err, store.ErrItemExists):
		return &Error{
			Status: http.StatusBadRequest, Code: "item_exists", Param: "items", cause: err,
			Message: "The conversation has an item with one of these ids already.",
		}
	}
	return fmt.Errorf("api: conversation %s: %w", id, err)
}

// itemError says what an error of the store means for one item.
func itemError(id queue.ID, err error) error {
	if errors.Is(err, queue.ErrNotFound) {
		return notThere("item_id", "item", err)
	}
	return conversationError(id, err)
}

// additions is a body that brings metadata, items, or both.
type additions struct {
	metadata []byte // nil: not said
	items    []store.Item
}

// additions reads a body whose items get ids where they have none. An empty body
// brings nothing.
func (x *exchange) additions() (additions, error) {
	var got additions
	body, err := x.read(x.a.MaxBodyBytes)
	if err != nil || len(body) == 0 {
		return got, err
	}
	if err := checkJSON(body); err != nil {
		return got, err
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return got, &response.BadRequest{Code: "invalid_type", Message: "The body must be an object."}
	}
	if !isNull(m["metadata"]) {
		metadata, err := response.ParseMetadata(m["metadata"])
		if err != nil {
			return got, err
		}
		if got.metadata, err = json.Marshal(metadata); err != nil {
			return got, fmt.Errorf("api: metadata: %w", err)
		}
	}
	if !isNull(m["items"]) {
		got.items, err = parseAdded(m["items"])
	}
	return got, err
}

// parseAdded reads the items that are added to a conversation.
func parseAdded(raw json.RawMessage) ([]store.Item, error) {
	items, err := response.ParseItems("items", raw)
	if err != nil {
		return nil, err
	}
	if len(items) > maxAdded {
		return nil, &response.BadRequest{
			Param: "items", Code: "array_above_max_length", Message: fmt.Sprintf("items may have %d entries.", maxAdded),
		}
	}
	seen := map[string]bool{}
	for i, it := range items {
		param := fmt.Sprintf("items[%d]", i)
		switch {
		case it.Type == "item_reference":
			return nil, &response.BadRequest{Param: param, Code: "unsupported_value", Message: "A conversation holds items themselves: send the item that is referred to."}
		case len(it.ID) > maxItemID:
			return nil, &response.BadRequest{Param: param + ".id", Code: "string_above_max_length", Message: fmt.Sprintf("id may have %d bytes.", maxItemID)}
		case it.ID != "" && seen[it.ID]:
			return nil, &response.BadRequest{Param: param + ".id", Code: "invalid_value", Message: "Two items have the same id."}
		}
		seen[it.ID] = true
	}
	added := make([]store.Item, 0, len(items))
	for _, it := range response.NameItems(items, queue.NewID()) {
		added = append(added, store.Item{ID: it.ID, Data: shown(it.Raw)})
	}
	return added, nil
}

// createConversation serves POST /v1/conversations.
func (a *API) createConversation(x *exchange) error {
	got, err := x.additions()
	if err != nil {
		return err
	}
	if got.metadata == nil {
		got.metadata = []byte("{}")
	}
	c := store.Conversation{ID: queue.NewID(), Tenant: x.tenant.Name, Metadata: got.metadata}
	ctx := x.r.Context()
	if err := a.Store.CreateConversation(ctx, c, got.items); err != nil {
		return conversationError(c.ID, err)
	}
	if c, err = a.Store.Conversation(ctx, x.tenant.Name, c.ID); err != nil {
		return conversationError(c.ID, err)
	}
	return x.writeJSON(http.StatusOK, conversationOf(c))
}

// conversation serves GET /v1/conversations/{id}.
func (a *API) conversation(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	c, err := a.Store.Conversation(x.r.Context(), x.tenant.Name, id)
	if err != nil {
		return conversationError(id, err)
	}
	return x.writeJSON(http.StatusOK, conversationOf(c))
}

// setMetadata serves POST /v1/conversations/{id}.
func (a *API) setMetadata(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	got, err := x.additions()
	switch {
	case err != nil:
		return err
	case len(got.items) > 0:
		return &response.BadRequest{Param: "items", Code: "unsupported_parameter", Message: "Items are added at …/items."}
	case got.metadata == nil:
		return &response.BadRequest{Param: "metadata", Code: "missing_required_parameter", Message: "metadata is required."}
	}
	c, err := a.Store.SetMetadata(x.r.Context(), x.tenant.Name, id, got.metadata)
	if err != nil {
		return conversationError(id, err)
	}
	return x.writeJSON(http.StatusOK, conversationOf(c))
}

// removeConversation serves DELETE /v1/conversations/{id}.
func (a *API) removeConversation(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	if err := a.Store.DeleteConversation(x.r.Context(), x.tenant.Name, id); err != nil {
		return conversationError(id, err)
	}
	return x.writeJSON(http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{conversationPrefix + id.String(), "conversation.deleted", true})
}

// addItems serves POST /v1/conversations/{id}/items.
func (a *API) addItems(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	got, err := x.additions()
	if err != nil {
		return err
	}
	if len(got.items) == 0 {
		return &response.BadRequest{Param: "items", Code: "missing_required_parameter", Message: "items is required, with at least one entry."}
	}
	if err := a.Store.AddItems(x.r.Context(), x.tenant.Name, id, got.items); err != nil {
		return conversationError(id, err)
	}
	return x.writeJSON(http.StatusOK, listItems(got.items, false))
}

// items serves GET /v1/conversations/{id}/items.
func (a *API) items(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	p, err := parsePage(x.r.URL.Query())
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	items, more, err := a.Store.Items(ctx, x.tenant.Name, id, p)
	if err != nil && errors.Is(err, queue.ErrNotFound) && p.After != "" {
		if _, cerr := a.Store.Conversation(ctx, x.tenant.Name, id); cerr == nil {
			return unknownAfter("item")
		}
	}
	if err != nil {
		return conversationError(id, err)
	}
	return x.writeJSON(http.StatusOK, listItems(items, more))
}

func listItems(items []store.Item, more bool) list {
	var data []json.RawMessage
	var ids []string
	for _, it := range items {
		data, ids = append(data, shown(it.Data)), append(ids, it.ID)
	}
	return newList(data, ids, more)
}

// item serves GET /v1/conversations/{id}/items/{item}.
func (a *API) item(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	it, err := a.Store.Item(x.r.Context(), x.tenant.Name, id, x.path.item)
	if err != nil {
		return itemError(id, err)
	}
	return x.write(http.StatusOK, "application/json", shown(it.Data))
}

// removeItem serves DELETE /v1/conversations/{id}/items/{item}: what is left is
// the conversation.
func (a *API) removeItem(x *exchange) error {
	id, err := x.conversationID()
	if err != nil {
		return err
	}
	c, err := a.Store.DeleteItem(x.r.Context(), x.tenant.Name, id, x.path.item)
	if err != nil {
		return itemError(id, err)
	}
	return x.writeJSON(http.StatusOK, conversationOf(c))
}
