package store

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Files is what a database must do for files. A file is a row and its chunks:
// FileChunk bytes each but the last. To clients a file that is Uploading or Gone,
// or whose time is up, is not there; nor is another tenant's.
type Files interface {
	// CreateFile stores a file without content, Uploading.
	CreateFile(ctx context.Context, f File) error

	// PutChunk stores the n-th chunk of a file that is Uploading, else it wraps
	// queue.ErrNotFound.
	PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error

	// FinishFile makes a file that is Uploading Ready, else it wraps
	// queue.ErrNotFound.
	FinishFile(ctx context.Context, id queue.ID, end FileEnd) (File, error)

	// File returns one file.
	File(ctx context.Context, tenant string, id queue.ID) (File, error)

	// ListFiles returns a page of a tenant's files, and whether there are more.
	ListFiles(ctx context.Context, tenant string, p FilePage) (files []File, more bool, err error)

	// Chunk returns the n-th chunk of a file, whatever its state; nil when there
	// is none.
	Chunk(ctx context.Context, id queue.ID, n int) ([]byte, error)

	// DeleteFile makes a file Gone. The error wraps queue.ErrNotFound, or
	// queue.ErrRunning for one that is Growing.
	DeleteFile(ctx context.Context, tenant string, id queue.ID) error

	// Tidy removes what nobody can reach any more, in short transactions: see
	// TidyRequest. Any number of hosts may call it at once.
	Tidy(ctx context.Context, r TidyRequest) (Tidied, error)
}

// FileChunk is the size of the chunks of a file.
const FileChunk = 512 << 10

// FileState is where a file stands. The numbers are stored: never reuse one.
type FileState int16

// The states of a file.
const (
	Uploading FileState = 0 // its content comes in
	Ready     FileState = 1
	Gone      FileState = 2 // deleted: its content is removed bit by bit
	Growing   FileState = 3 // of a batch that has not ended: its content is in the batch's results
)

// File is one file without its content.
type File struct {
	ID      queue.ID
	Tenant  string
	Name    string
	Purpose string
	Bytes   int64 // 0 until it is Ready
	State   FileState
	Batch   queue.ID // of which it holds the output or the errors; zero: uploaded
	Created time.Time
	Expires time.Time // zero: never
}

// FileEnd is what is known of a file when its content is whole.
type FileEnd struct {
	Purpose   string
	Bytes     int64
	ExpiresIn time.Duration // 0: never
}

// FilePage is a part of a tenant's files.
type FilePage struct {
	Limit     int
	After     queue.ID // the file before the page; zero: from the first
	Ascending bool     // oldest first
	Purpose   string   // "": any
}

// TidyRequest says what to tidy up. Zero fields take the defaults given.
type TidyRequest struct {
	// Unfinished is how long an upload may bring nothing before it is given up, 1 h.
	Unfinished time.Duration
	// KeepBatches is how long a batch is kept after its end, 30 days. The files
	// that it made stay as long as they were to.
	KeepBatches time.Duration
	// Limit is about how many rows are removed at once, 100; a chunk counts as ten.
	Limit int
}

// WithDefaults returns r with what was not set.
func (r TidyRequest) WithDefaults() TidyRequest {
	if r.Unfinished <= 0 {
		r.Unfinished = time.Hour
	}
	if r.KeepBatches <= 0 {
		r.KeepBatches = 30 * 24 * time.Hour
	}
	if r.Limit <= 0 {
		r.Limit = 100
	}
	return r
}

// Tidied counts what Tidy did. While there is More, it should soon be called
// again.
type Tidied struct {
	Expired int // files that became Gone: their time was up, or their upload did not end
	Files   int // removed
	Batches int // removed
	More    bool
}

func (f *File) check() error {
	if f.ID == (queue.ID{}) || f.Tenant == "" {
		return fmt.Errorf("store: file without an id or tenant: %w", ErrInvalid)
	}
	if err := names("file", f.Tenant, f.Name, f.Purpose); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// CreateFile stores a file without content; see Files.
func (s *Store) CreateFile(ctx context.Context, f File) error {
	if err := f.check(); err != nil {
		return err
	}
	return s.driver.CreateFile(ctx, f)
}

// PutChunk stores the n-th chunk of a file; see Files.
func (s *Store) PutChunk(ctx context.Context, id queue.ID, n int, data []byte) error {
	if n < 0 || len(data) == 0 || len(data) > FileChunk {
		return fmt.Errorf("store: file %s: chunk %d of %d bytes: %w", id, n, len(data), ErrInvalid)
	}
	return s.driver.PutChunk(ctx, id, n, data)
}

// FinishFile makes a file Ready; see Files.
func (s *Store) FinishFile(ctx context.Context, id queue.ID, end FileEnd) (File, error) {
	if end.Bytes < 0 || end.ExpiresIn < 0 {
		return File{}, fmt.Errorf("store: file %s: %d bytes, expires in %s: %w", id, end.Bytes, end.ExpiresIn, ErrInvalid)
	}
	if err := names("file", end.Purpose); err != nil {
		return File{}, fmt.Errorf("store: %w", err)
	}
	return s.driver.FinishFile(ctx, id, end)
}

// File returns one file; see Files.
func (s *Store) File(ctx context.Context, tenant string, id queue.ID) (File, error) {
	return s.driver.File(ctx, tenant, id)
}

// ListFiles returns a page of a tenant's files; see Files.
func (s *Store) ListFiles(ctx context.Context, tenant string, p FilePage) ([]File, bool, error) {
	if err := names("files", tenant, p.Purpose); err != nil || p.Limit <= 0 {
		return nil, false, nil //nolint:nilerr // no file has such a name
	}
	return s.driver.ListFiles(ctx, tenant, p)
}

// Chunk returns the n-th chunk of a file; see Files.
func (s *Store) Chunk(ctx context.Context, id queue.ID, n int) ([]byte, error) {
	return s.driver.Chunk(ctx, id, n)
}

// DeleteFile makes a file Gone; see Files.
func (s *Store) DeleteFile(ctx context.Context, tenant string, id queue.ID) error {
	return s.driver.DeleteFile(ctx, tenant, id)
}

// Tidy removes what nobody can reach any more; see Files.
func (s *Store) Tidy(ctx context.Context, r TidyRequest) (Tidied, error) {
	return s.driver.Tidy(ctx, r.WithDefaults())
}
