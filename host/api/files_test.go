package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/batch"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

// withFiles gives the host a store for files and batches, which it returns.
func withFiles(t *testing.T, change ...func(*api.Options)) (*host, *store.Store) {
	t.Helper()
	d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s := store.New(d, store.Options{})
	h := newHost(t, append([]func(*api.Options){func(o *api.Options) {
		o.Uploads, o.Batches, o.Outputs = s, s, batch.Outputs{Store: s, Failure: api.Failure}
		o.Files = api.Contents{Store: s, Max: 1 << 20}
	}}, change...)...)
	return h, s
}

// form is a multipart body of parts: name, value, …; the value of "file" is the
// content of in.jsonl.
func form(t *testing.T, parts ...string) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		var err error
		var part io.Writer
		if parts[i] == "file" {
			part, err = w.CreateFormFile("file", "in.jsonl")
		} else {
			part, err = w.CreateFormField(parts[i])
		}
		if err == nil {
			_, err = io.WriteString(part, parts[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func (h *host) upload(parts ...string) answer {
	h.t.Helper()
	body, kind := form(h.t, parts...)
	return h.do("POST", "/v1/files", body, "Content-Type", kind)
}

func TestFiles(t *testing.T) {
	h, _ := withFiles(t)
	content := strings.Repeat("0123456789abcdef", store.FileChunk/16) + "\x00end"
	// The file comes before its purpose, as clients send it.
	a := h.upload("file", content, "purpose", "user_data", "expires_after[anchor]", "created_at", "expires_after[seconds]", "3600")
	var f struct {
		ID, Object, Filename, Purpose, Status string
		Bytes, CreatedAt                      int64
		Created                               int64  `json:"created_at"`
		Expires                               *int64 `json:"expires_at"`
	}
	a.decode(t, &f)
	if a.status != 200 || f.Object != "file" || f.Filename != "in.jsonl" || f.Purpose != "user_data" || f.Status != "processed" ||
		f.Bytes != int64(len(content)) || f.Created == 0 || f.Expires == nil || *f.Expires != f.Created+3600 || !strings.HasPrefix(f.ID, "file-") {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if got := h.get("/v1/files/" + f.ID); !bytes.Equal(got.body, a.body) {
		t.Errorf("GET: got %s, want %s", got.body, a.body)
	}
	c := h.get("/v1/files/" + f.ID + "/content")
	if c.status != 200 || string(c.body) != content || c.header.Get("Content-Length") != fmt.Sprint(len(content)) {
		t.Errorf("content: got %d, %d bytes, headers %v", c.status, len(c.body), c.header)
	}
	if c := h.do("HEAD", "/v1/files/"+f.ID+"/content", ""); c.status != 200 || len(c.body) != 0 || c.header.Get("Content-Length") != fmt.Sprint(len(content)) {
		t.Errorf("HEAD: got %d, headers %v", c.status, c.header)
	}
	second := h.upload("purpose", "batch", "file", "x").object(t)
	for query, want := range map[string]string{
		"": second.ID + " " + f.ID, "?limit=0": second.ID + " " + f.ID, "?order=asc": f.ID + " " + second.ID, "?limit=1": second.ID,
		"?after=" + second.ID: f.ID, "?purpose=batch": second.ID, "?purpose=batch_output": "",
	} {
		var ids []string
		for _, e := range h.get("/v1/files" + query).object(t).Data {
			ids = append(ids, e.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("list%s: got %q, want %q", query, got, want)
		}
	}
	h.key = "key-beta"
	for _, call := range [][2]string{{"GET", ""}, {"GET", "/content"}, {"DELETE", ""}} {
		h.do(call[0], "/v1/files/"+f.ID+call[1], "").wantError(t, 404, "not_found", "id")
	}
	if got := h.get("/v1/files").object(t); len(got.Data) != 0 {
		t.Errorf("another tenant's list: got %+v", got.Data)
	}
	h.key = "key-acme"
	if got := h.do("DELETE", "/v1/files/"+f.ID, "").object(t); !got.Deleted || got.ID != f.ID || got.Object != "file" {
		t.Errorf("DELETE: got %+v", got)
	}
	h.get("/v1/files/"+f.ID).wantError(t, 404, "not_found", "id")
	h.get("/v1/files/"+f.ID+"/content").wantError(t, 404, "not_found", "id")
}

func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
}

func TestBadUploads(t *testing.T) {
	h, s := withFiles(t, func(o *api.Options) { o.MaxFileBytes = 1000 })
	for name, c := range map[string]struct {
		parts       []string
		status      int
		code, param string
	}{
		"no file":         {[]string{"purpose", "batch"}, 400, "missing_required_parameter", "file"},
		"no purpose":      {[]string{"file", "x"}, 400, "missing_required_parameter", "purpose"},
		"unknown purpose": {[]string{"file", "x", "purpose", "fun"}, 400, "invalid_value", "purpose"},
		"empty":           {[]string{"file", "", "purpose", "batch"}, 400, "invalid_value", "file"},
		"two files":       {[]string{"file", "x", "file", "y", "purpose", "batch"}, 400, "invalid_value", "file"},
		"too large":       {[]string{"file", strings.Repeat("x", 1001), "purpose", "batch"}, 413, "payload_too_large", "file"},
		"anchor":          {[]string{"file", "x", "purpose", "batch", "expires_after[seconds]", "3600"}, 400, "invalid_value", "expires_after"},
		"soon":            {[]string{"file", "x", "purpose", "batch", "expires_after[anchor]", "created_at", "expires_after[seconds]", "1"}, 400, "invalid_value", "expires_after"},
		"long field":      {[]string{"file", "x", "purpose", strings.Repeat("x", 5000)}, 400, "invalid_value", "purpose"},
	} {
		t.Run(name, func(t *testing.T) { h.upload(c.parts...).wantError(t, c.status, c.code, c.param) })
	}
	if a := h.upload("file", strings.Repeat("x", 1000), "purpose", "vision"); a.status != 200 {
		t.Errorf("as large as may be: got %d %s", a.status, a.body)
	}
	h.do("POST", "/v1/files", "{}", "Content-Type", "application/json").wantError(t, 400, "invalid_form", "")
	body, kind := form(t, "file", "x", "purpose", "batch")
	h.do("POST", "/v1/files", body[:len(body)-20], "Content-Type", kind).wantError(t, 400, "invalid_form", "")
	files, _, err := s.ListFiles(t.Context(), "acme", store.FilePage{Limit: 99})
	if err != nil || len(files) != 1 {
		t.Errorf("files: got %+v, %v, want the good one", files, err)
	}
	for _, q := range []string{"limit=x", "limit=10001", "limit=-1", "order=up", "after=file-1", "after=nope", "purpose=fun"} {
		name, _, _ := strings.Cut(q, "=")
		h.get("/v1/files?"+q).wantError(t, 400, "invalid_value", name)
	}
}

// TestUploadIsStreamed: a form as large as may be never is in memory as a whole.
func TestUploadIsStreamed(t *testing.T) {
	const chunks = 40
	seen := &chunkStore{}
	h, _ := withFiles(t, func(o *api.Options) {
		seen.FileStore = o.Uploads
		o.Uploads = seen
	})
	body, end := io.Pipe()
	w := multipart.NewWriter(end)
	go func() {
		part, err := w.CreateFormFile("file", "big.bin")
		for n := 0; n < chunks && err == nil; n++ {
			_, err = part.Write(make([]byte, store.FileChunk))
			if n > 0 { // what came before is stored while the rest is still to come
				<-seen.stored(n - 1)
			}
		}
		err = errors.Join(err, w.WriteField("purpose", "user_data"), w.Close())
		end.CloseWithError(err)
	}()
	req, err := http.NewRequestWithContext(t.Context(), "POST", h.url+"/v1/files", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.key)
	req.Header.Set("Content-Type", w.FormDataContentType())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("got %s", res.Status)
	}
}

// chunkStore tells of the chunks that it stored.
type chunkStore struct {
	api.FileStore
	mu   sync.Mutex
	done map[int]chan struct{}
}

func (c *chunkStore) stored(n int) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(map[int]chan struct{})
	}
	if c.done[n] == nil {
		c.done[n] = make(chan struct{})
	}
	return c.done[n]
}

func (c *chunkStore) PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error {
	err := c.FileStore.PutChunk(ctx, id, n, data)
	close(c.stored(n))
	return err
}

func TestContents(t *testing.T) {
	h, s := withFiles(t)
	id := h.upload("file", "hello", "purpose", "user_data").object(t).ID
	c := api.Contents{Store: s, Max: 5}
	name, kind, data, err := c.Content(t.Context(), "acme", id)
	if err != nil || name != "in.jsonl" || string(data) != "hello" {
		t.Errorf("got %q, %q, %q, %v", name, kind, data, err)
	}
	for _, other := range [][2]string{{"beta", id}, {"acme", "file-1"}, {"acme", "nope"}} {
		if _, _, _, err := c.Content(t.Context(), other[0], other[1]); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%v: got %v", other, err)
		}
	}
	c.Max = 4
	var size *http.MaxBytesError
	if _, _, _, err := c.Content(t.Context(), "acme", id); !errors.As(err, &size) {
		t.Errorf("larger than may be: got %v", err)
	}
}
