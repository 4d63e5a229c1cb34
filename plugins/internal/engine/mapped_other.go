//go:build !linux

package engine

import "errors"

// imageFile, pageMap and processPages have nothing in them where images are
// kept in Go's heap only.
type (
	imageFile struct{}
	pageMap   struct{}
)

var processPages *pageMap

func newImageFile([]byte) (*imageFile, error) { return nil, errors.ErrUnsupported }

func (*imageFile) image() []byte { return nil }

func (*imageFile) close() error { return nil }

// newSpace returns the space for an instance of c.
func (c *Code) newSpace(image *Image) space { return newHeapSpace(image) }
