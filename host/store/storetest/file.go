package storetest

import (
	"bytes"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var fileCases = []testCase{
	{"FileLife", testFileLife},
	{"FileList", testFileList},
	{"FileOfAnother", testFileForeign},
	{"FileUploadIsGivenUp", testFileGivenUp},
	{"FileExpires", testFileExpires},
	{"FileIsRemovedInParts", testFileParts},
	{"FileStaysForItsBatch", testFileStays},
}

// upload stores a file of so many chunks of the default tenant.
func (h *harness) upload(purpose string, chunks ...string) store.File {
	h.Helper()
	f := store.File{ID: queue.NewID(), Tenant: tenant, Name: "in.jsonl"}
	if err := h.d.CreateFile(h.Context(), f); err != nil {
		h.Fatalf("CreateFile: %v", err)
	}
	end := store.FileEnd{Purpose: purpose}
	for i, c := range chunks {
		if err := h.d.PutChunk(h.Context(), f.ID, i, []byte(c)); err != nil {
			h.Fatalf("PutChunk: %v", err)
		}
		end.Bytes += int64(len(c))
	}
	f, err := h.d.FinishFile(h.Context(), f.ID, end)
	if err != nil {
		h.Fatalf("FinishFile: %v", err)
	}
	return f
}

// wantFile checks whether a tenant sees a file.
func (h *harness) wantFile(tenant string, id queue.ID, want bool) {
	h.Helper()
	_, err := h.d.File(h.Context(), tenant, id)
	if (err == nil) != want || (!want && !errors.Is(err, queue.ErrNotFound)) {
		h.Errorf("File(%q, %s): got %v, want found %t", tenant, id, err, want)
	}
}

func (h *harness) wantChunk(id queue.ID, n int, want string) {
	h.Helper()
	got, err := h.d.Chunk(h.Context(), id, n)
	if err != nil || string(got) != want {
		h.Errorf("Chunk(%d): got %.40q, %v, want %.40q", n, got, err, want)
	}
}

func testFileLife(h *harness) {
	id := queue.NewID()
	if err := h.d.PutChunk(h.Context(), id, 0, []byte("x")); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("PutChunk of no file: got %v", err)
	}
	if err := h.d.CreateFile(h.Context(), store.File{ID: id, Tenant: tenant, Name: "ä b.jsonl"}); err != nil {
		h.Fatal(err)
	}
	h.wantFile(tenant, id, false)
	for n, data := range []string{"first\x00", "second"} {
		for range 2 { // a chunk may come again
			if err := h.d.PutChunk(h.Context(), id, n, []byte(data)); err != nil {
				h.Fatal(err)
			}
		}
	}
	f, err := h.d.FinishFile(h.Context(), id, store.FileEnd{Purpose: "batch", Bytes: 12, ExpiresIn: time.Hour})
	if err != nil {
		h.Fatal(err)
	}
	if f.ID != id || f.Name != "ä b.jsonl" || f.Purpose != "batch" || f.Bytes != 12 || f.State != store.Ready || f.Batch != (queue.ID{}) ||
		f.Created.IsZero() || f.Expires.Before(f.Created.Add(59*time.Minute)) {
		h.Errorf("FinishFile: got %+v", f)
	}
	again, err := h.d.File(h.Context(), tenant, id)
	if err != nil || again != f {
		h.Errorf("File: got %+v, %v, want %+v", again, err, f)
	}
	h.wantChunk(id, 0, "first\x00")
	h.wantChunk(id, 1, "second")
	h.wantChunk(id, 2, "")
	if err := h.d.PutChunk(h.Context(), id, 2, []byte("x")); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("PutChunk after the end: got %v", err)
	}
	if _, err := h.d.FinishFile(h.Context(), id, store.FileEnd{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("FinishFile again: got %v", err)
	}
	if err := h.d.DeleteFile(h.Context(), tenant, id); err != nil {
		h.Fatal(err)
	}
	h.wantFile(tenant, id, false)
	if err := h.d.DeleteFile(h.Context(), tenant, id); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("DeleteFile again: got %v", err)
	}
}

func testFileList(h *harness) {
	var ids []queue.ID
	for i := range 5 {
		ids = append(ids, h.upload([]string{"batch", "user_data"}[i%2], "x").ID)
	}
	if err := h.d.CreateFile(h.Context(), store.File{ID: queue.NewID(), Tenant: tenant}); err != nil {
		h.Fatal(err)
	}
	for _, c := range []struct {
		page store.FilePage
		want []queue.ID
		more bool
	}{
		{store.FilePage{Limit: 9}, []queue.ID{ids[4], ids[3], ids[2], ids[1], ids[0]}, false},
		{store.FilePage{Limit: 5}, []queue.ID{ids[4], ids[3], ids[2], ids[1], ids[0]}, false},
		{store.FilePage{Limit: 2}, []queue.ID{ids[4], ids[3]}, true},
		{store.FilePage{Limit: 2, After: ids[3]}, []queue.ID{ids[2], ids[1]}, true},
		{store.FilePage{Limit: 2, After: ids[3], Ascending: true}, []queue.ID{ids[4]}, false},
		{store.FilePage{Limit: 9, Ascending: true, Purpose: "user_data"}, []queue.ID{ids[1], ids[3]}, false},
		{store.FilePage{Limit: 9, Purpose: "vision"}, nil, false},
	} {
		files, more, err := h.d.ListFiles(h.Context(), tenant, c.page)
		var got []queue.ID
		for _, f := range files {
			got = append(got, f.ID)
		}
		if err != nil || more != c.more || !equal(got, c.want) {
			h.Errorf("ListFiles(%+v): got %v, %t, %v, want %v, %t", c.page, got, more, err, c.want, c.more)
		}
	}
	if _, _, err := h.d.ListFiles(h.Context(), tenant, store.FilePage{Limit: 1, After: queue.NewID()}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("ListFiles after no file: got %v", err)
	}
}

func equal(a, b []queue.ID) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func testFileForeign(h *harness) {
	f := h.upload("batch", "x")
	h.wantFile("tenant-b", f.ID, false)
	h.wantFile("", f.ID, true)
	if err := h.d.DeleteFile(h.Context(), "tenant-b", f.ID); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("DeleteFile: got %v", err)
	}
	if files, _, err := h.d.ListFiles(h.Context(), "tenant-b", store.FilePage{Limit: 9}); err != nil || len(files) != 0 {
		h.Errorf("ListFiles: got %v, %v", files, err)
	}
	if _, _, err := h.d.ListFiles(h.Context(), "tenant-b", store.FilePage{Limit: 9, After: f.ID}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("ListFiles after another's: got %v", err)
	}
	h.wantFile(tenant, f.ID, true)
}

// tidy tidies up until done says so.
func (h *harness) tidy(r store.TidyRequest, what string, done func(store.Tidied) bool) {
	h.Helper()
	for begin := time.Now(); ; {
		t, err := h.d.Tidy(h.Context(), r)
		if err != nil {
			h.Fatalf("Tidy: %v", err)
		}
		if done(t) {
			return
		}
		if time.Since(begin) > patience {
			h.Fatalf("no Tidy in %s %s", patience, what)
		}
	}
}

func removedFile(t store.Tidied) bool { return t.Files == 1 }

func testFileGivenUp(h *harness) {
	id := queue.NewID()
	if err := h.d.CreateFile(h.Context(), store.File{ID: id, Tenant: tenant}); err != nil {
		h.Fatal(err)
	}
	if err := h.d.PutChunk(h.Context(), id, 0, []byte("x")); err != nil {
		h.Fatal(err)
	}
	ready := h.upload("batch", "x")
	if t, err := h.d.Tidy(h.Context(), store.TidyRequest{}); err != nil || t != (store.Tidied{}) {
		h.Errorf("Tidy: got %+v, %v, want nothing done within the hour", t, err)
	}
	h.tidy(store.TidyRequest{Unfinished: time.Millisecond}, "removed the upload", removedFile)
	if _, err := h.d.FinishFile(h.Context(), id, store.FileEnd{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("FinishFile: got %v", err)
	}
	h.wantChunk(id, 0, "")
	h.wantFile(tenant, ready.ID, true)
}

func testFileExpires(h *harness) {
	id := queue.NewID()
	if err := h.d.CreateFile(h.Context(), store.File{ID: id, Tenant: tenant}); err != nil {
		h.Fatal(err)
	}
	if _, err := h.d.FinishFile(h.Context(), id, store.FileEnd{Purpose: "batch", ExpiresIn: time.Millisecond}); err != nil {
		h.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < patience; {
		if _, err := h.d.File(h.Context(), tenant, id); errors.Is(err, queue.ErrNotFound) {
			break
		}
	}
	h.wantFile(tenant, id, false)
	if files, _, err := h.d.ListFiles(h.Context(), tenant, store.FilePage{Limit: 9}); err != nil || len(files) != 0 {
		h.Errorf("ListFiles: got %v, %v", files, err)
	}
	if _, err := h.d.CreateBatch(h.Context(), newBatch(id), time.Hour); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("CreateBatch: got %v", err)
	}
	h.tidy(store.TidyRequest{}, "removed the file", removedFile)
}

func testFileParts(h *harness) {
	part := string(bytes.Repeat([]byte("x"), 1000))
	f := h.upload("batch", part, part, part, part, part)
	if err := h.d.DeleteFile(h.Context(), tenant, f.ID); err != nil {
		h.Fatal(err)
	}
	rounds := 0
	h.tidy(store.TidyRequest{Limit: 10}, "removed the file", func(t store.Tidied) bool {
		rounds++
		if !t.More {
			h.Errorf("round %d: got %+v, want more", rounds, t)
		}
		return t.Files == 1
	})
	if rounds != 3 { // two chunks at a time
		h.Errorf("got %d rounds, want 3", rounds)
	}
	h.wantChunk(f.ID, 4, "")
}

// testFileStays: a batch that has not read all of its input goes on with it.
func testFileStays(h *harness) {
	f := h.upload("batch", "x")
	b := h.batch(f.ID)
	if err := h.d.DeleteFile(h.Context(), tenant, f.ID); err != nil {
		h.Fatal(err)
	}
	if t, err := h.d.Tidy(h.Context(), store.TidyRequest{}); err != nil || t.Files != 0 || t.More {
		h.Errorf("Tidy: got %+v, %v", t, err)
	}
	h.wantFile(tenant, f.ID, false)
	h.wantChunk(f.ID, 0, "x")
	b.State, b.Settled = store.BatchFailed, true
	h.step(store.BatchStep{Batch: b})
	h.tidy(store.TidyRequest{}, "removed the file", removedFile)
}
