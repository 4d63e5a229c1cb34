package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// FileStore is what the API needs of the store for files; see store.Files.
type FileStore interface {
	CreateFile(ctx context.Context, f store.File) error
	PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error
	FinishFile(ctx context.Context, id queue.ID, end store.FileEnd) (store.File, error)
	File(ctx context.Context, tenant string, id queue.ID) (store.File, error)
	ListFiles(ctx context.Context, tenant string, p store.FilePage) ([]store.File, bool, error)
	Chunk(ctx context.Context, id queue.ID, n int) ([]byte, error)
	DeleteFile(ctx context.Context, tenant string, id queue.ID) error
}

const (
	pathFiles = "/v1/files"
	// filePrefix begins the public id of a file.
	filePrefix = "file-"
	// maxFiles is how many files a page may have.
	maxFiles = 10_000
)

// purposes are those that an upload may have.
var purposes = []string{"assistants", "batch", "evals", "fine-tune", "user_data", "vision"}

// fileRoutes are the routes of files.
func (a *API) fileRoutes() []route {
	if a.Uploads == nil {
		return nil
	}
	return []route{
		{path: pathFiles, methods: map[string]handler{"POST": a.upload, "GET": a.listFiles}},
		{path: pathFiles + "/{id}", methods: map[string]handler{"GET": a.file, "DELETE": a.removeFile}},
		{path: pathFiles + "/{id}/content", methods: map[string]handler{"GET": a.fileContent, "HEAD": a.fileContent}},
	}
}

// fileObject is a file as clients see it.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt *int64 `json:"expires_at"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"`
}

func objectOfFile(f store.File) fileObject {
	o := fileObject{
		ID: filePrefix + f.ID.String(), Object: "file", Bytes: f.Bytes, CreatedAt: f.Created.Unix(),
		Filename: f.Name, Purpose: f.Purpose, Status: "processed",
	}
	if f.State == store.Growing {
		o.Status = "uploaded"
	}
	if !f.Expires.IsZero() {
		at := f.Expires.Unix()
		o.ExpiresAt = &at
	}
	return o
}

// fileID reads the public id of a file.
func fileID(s string) (queue.ID, error) { return prefixedID(s, filePrefix) }

// prefixedID reads a public id; a malformed one is nobody's.
func prefixedID(s, prefix string) (queue.ID, error) {
	hex, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return queue.ID{}, queue.ErrNotFound
	}
	id, err := queue.ParseID(hex)
	if err != nil {
		return queue.ID{}, queue.ErrNotFound
	}
	return id, nil
}

// fileError is the answer to an error of the store of files.
func fileError(err error) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Code: "not_found", Param: "id", Message: "There is no such file.", cause: err}
	case errors.Is(err, queue.ErrRunning):
		return &Error{
			Status: http.StatusConflict, Code: "file_in_use", Final: true, cause: err,
			Message: "The file is written by a batch that has not ended: cancel the batch or wait for its end.",
		}
	}
	return fmt.Errorf("api: file: %w", err)
}

// findFile returns the file of the path.
func (x *exchange) findFile() (store.File, error) {
	id, err := fileID(x.path.id)
	if err != nil {
		return store.File{}, fileError(err)
	}
	f, err := x.a.Uploads.File(x.r.Context(), x.tenant.Name, id)
	if err != nil {
		return store.File{}, fileError(err)
	}
	return f, nil
}

// file serves GET /v1/files/{id}.
func (a *API) file(x *exchange) error {
	f, err := x.findFile()
	if err != nil {
		return err
	}
	return x.writeJSON(http.StatusOK, objectOfFile(f))
}

// removeFile serves DELETE /v1/files/{id}.
func (a *API) removeFile(x *exchange) error {
	f, err := x.findFile()
	if err != nil {
		return err
	}
	if err := a.Uploads.DeleteFile(x.r.Context(), x.tenant.Name, f.ID); err != nil {
		return fileError(err)
	}
	return x.writeJSON(http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{filePrefix + f.ID.String(), "file", true})
}

// listFiles serves GET /v1/files.
func (a *API) listFiles(x *exchange) error {
	p, err := filePage(x.r.URL.Query())
	if err != nil {
		return err
	}
	files, more, err := a.Uploads.ListFiles(x.r.Context(), x.tenant.Name, p)
	if errors.Is(err, queue.ErrNotFound) {
		return unknownAfter("file")
	}
	if err != nil {
		return fileError(err)
	}
	var data []json.RawMessage
	var ids []string
	for _, f := range files {
		o := objectOfFile(f)
		raw, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("api: files: %w", err)
		}
		data, ids = append(data, raw), append(ids, o.ID)
	}
	return x.writeJSON(http.StatusOK, newList(data, ids, more))
}

// unknownAfter is the answer to a page after an entry that is not there.
func unknownAfter(what string) error {
	return &response.BadRequest{Param: "after", Code: "invalid_value", Message: "after must be the id of a " + what + "."}
}

// filePage reads limit, order, after and purpose of a query. A limit of 0 says
// nothing: there are clients that send it.
func filePage(q url.Values) (p store.FilePage, err error) {
	p.Limit = maxFiles
	if s := q.Get("limit"); s != "" && s != "0" {
		if p.Limit, err = strconv.Atoi(s); err != nil || p.Limit < 1 || p.Limit > maxFiles {
			return p, &response.BadRequest{Param: "limit", Code: "invalid_value", Message: fmt.Sprintf("limit must be 1 to %d.", maxFiles)}
		}
	}
	switch q.Get("order") {
	case "", "desc":
	case "asc":
		p.Ascending = true
	default:
		return p, &response.BadRequest{Param: "order", Code: "invalid_value", Message: "order must be asc or desc."}
	}
	if s := q.Get("after"); s != "" {
		if p.After, err = fileID(s); err != nil {
			return p, unknownAfter("file")
		}
	}
	p.Purpose = q.Get("purpose")
	if p.Purpose != "" && p.Purpose != "batch_output" && !slices.Contains(purposes, p.Purpose) {
		return p, badPurpose()
	}
	return p, nil
}

func badPurpose() error {
	return &response.BadRequest{Param: "purpose", Code: "invalid_value", Message: "purpose must be one of " + strings.Join(purposes, ", ") + "."}
}

// fileContent serves GET and HEAD /v1/files/{id}/content, a chunk at a time. What
// a batch is writing is what has ended of it so far.
func (a *API) fileContent(x *exchange) error {
	f, err := x.findFile()
	if err != nil {
		return err
	}
	defer x.restWrite()
	head := func() {
		x.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(f.Name)}))
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
		x.begin(http.StatusOK, "application/octet-stream")
	}
	if f.State == store.Growing {
		return a.growingContent(x, f, head)
	}
	x.w.Header().Set("Content-Length", strconv.FormatInt(f.Bytes, 10))
	if x.r.Method == http.MethodHead {
		head()
		return nil
	}
	for n, sent := 0, int64(0); sent < f.Bytes; n++ {
		part, err := a.Uploads.Chunk(x.r.Context(), f.ID, n)
		if err == nil && len(part) == 0 {
			err = fmt.Errorf("chunk %d is gone: %w", n, queue.ErrNotFound) // deleted meanwhile
		}
		if err != nil {
			if n == 0 {
				x.w.Header().Del("Content-Length")
			}
			return fileError(err)
		}
		part = part[:min(int64(len(part)), f.Bytes-sent)]
		head()
		if err := x.send(part); err != nil {
			return err
		}
		sent += int64(len(part))
	}
	head()
	return nil
}

// send writes a part of an answer that has begun.
func (x *exchange) send(part []byte) error {
	x.allowWrite()
	if _, err := x.w.Write(part); err != nil {
		return fmt.Errorf("api: answer: %w: %w", queue.ErrClientGone, err)
	}
	return nil
}

// growingContent writes what has ended of the output or the errors of a batch.
func (a *API) growingContent(x *exchange, f store.File, head func()) error {
	if a.Batches == nil || a.Outputs == nil {
		return fileError(queue.ErrNotFound)
	}
	b, err := a.Batches.Batch(x.r.Context(), x.tenant.Name, f.Batch)
	if err != nil {
		return batchError(err)
	}
	if f.ID != b.Output && f.ID != b.Errors { // the batch ended just now, and left this one empty
		return fileError(queue.ErrNotFound)
	}
	head()
	if x.r.Method == http.MethodHead {
		return nil
	}
	const some = 64 << 10
	var rest []byte
	err = a.Outputs.Write(x.r.Context(), b, b.Errors == f.ID, func(line []byte) error {
		if rest = append(rest, line...); len(rest) < some {
			return nil
		}
		err := x.send(rest)
		rest = rest[:0]
		return err
	})
	if err != nil {
		return fmt.Errorf("api: file: %w", err)
	}
	return x.send(rest)
}

// Contents are uploaded files as requests refer to them; it implements Files.
type Contents struct {
	Store FileStore
	Max   int64 // bytes of a file; more is not read
}

// Content implements Files. The media type follows from the name.
func (c Contents) Content(ctx context.Context, tenant, public string) (name, mediaType string, data []byte, err error) {
	id, err := fileID(public)
	if err != nil {
		return "", "", nil, fmt.Errorf("api: file: %w", err)
	}
	f, err := c.Store.File(ctx, tenant, id)
	if err != nil {
		return "", "", nil, fmt.Errorf("api: file: %w", err)
	}
	if f.State != store.Ready {
		return "", "", nil, fmt.Errorf("api: file %s: it is not whole yet: %w", f.ID, queue.ErrNotFound)
	}
	if f.Bytes > c.Max {
		return "", "", nil, fmt.Errorf("api: file %s: %w", f.ID, &http.MaxBytesError{Limit: c.Max})
	}
	data = make([]byte, 0, f.Bytes)
	for n := 0; int64(len(data)) < f.Bytes; n++ {
		part, err := c.Store.Chunk(ctx, id, n)
		if err == nil && len(part) == 0 {
			err = queue.ErrNotFound
		}
		if err != nil {
			return "", "", nil, fmt.Errorf("api: file: %w", err)
		}
		data = append(data, part...)
	}
	mediaType, _, _ = strings.Cut(mime.TypeByExtension(path.Ext(f.Name)), ";")
	return f.Name, mediaType, data[:f.Bytes], nil
}
