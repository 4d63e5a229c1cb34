package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// chunks reads a file, of which it holds one chunk.
type chunks struct {
	store interface {
		Chunk(ctx context.Context, id queue.ID, n int) ([]byte, error)
	}
	file queue.ID
	n    int
	data []byte // of chunk n; nil: none yet
}

// errCut: the file is not as long as it was.
var errCut = errors.New("batch: the input ends too early")

// at returns what the file holds from offset to the end of a chunk; nil at its
// end.
func (c *chunks) at(ctx context.Context, offset int64) ([]byte, error) {
	n := int(offset / store.FileChunk)
	if c.data == nil || n != c.n {
		data, err := c.store.Chunk(ctx, c.file, n)
		if err != nil {
			return nil, fmt.Errorf("batch: input: %w", err)
		}
		c.n, c.data = n, data
	}
	rest := int(offset % store.FileChunk)
	if rest >= len(c.data) {
		return nil, nil
	}
	return c.data[rest:], nil
}

// read returns size bytes from offset on.
func (c *chunks) read(ctx context.Context, offset int64, size int) ([]byte, error) {
	b := make([]byte, 0, size)
	for len(b) < size {
		part, err := c.at(ctx, offset+int64(len(b)))
		switch {
		case err != nil:
			return nil, err
		case len(part) == 0:
			return nil, errCut
		}
		b = append(b, part[:min(len(part), size-len(b))]...)
	}
	return b, nil
}

// text is one line of a file.
type text struct {
	data   []byte // without its end; of a line that is too long, its beginning
	offset int64
	size   int   // bytes, without its end
	next   int64 // where the next begins
	long   bool
}

// line returns the line that begins at offset, of which it keeps at most limit
// bytes; ok is false at the end of the file.
func (c *chunks) line(ctx context.Context, offset int64, limit int) (t text, ok bool, err error) {
	t = text{offset: offset, next: offset}
	for {
		part, err := c.at(ctx, t.next)
		if err != nil {
			return t, false, err
		}
		end := bytes.IndexByte(part, '\n')
		piece := part
		if end >= 0 {
			piece = part[:end]
		}
		t.size += len(piece)
		t.data = append(t.data, piece[:min(len(piece), limit+1-len(t.data))]...)
		t.long = t.size > limit
		t.next += int64(len(piece))
		switch {
		case end >= 0:
			t.next++
			return t, true, nil
		case len(part) == 0: // the end of the file
			return t, t.size > 0, nil
		}
	}
}
