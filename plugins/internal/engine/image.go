package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// Image is the state of an instance between two calls: what other instances of
// the same code start from and are put back to. It does not change. It is safe
// for concurrent use, and must be closed.
type Image struct {
	code    *Code
	bytes   []byte     // of the memory; only to be read
	file    *imageFile // that bytes is a view of; nil: bytes is in Go's heap
	globals []uint64   // bit patterns, in the order of rewrite.Module.Globals
	users   atomic.Int64
	closed  atomic.Bool
}

// Snapshot returns an image of the instance as it is now. The instance itself
// is not bound to it. It fails when the module does what an image cannot hold.
func (i *Instance) Snapshot() (*Image, error) {
	if !i.begin() {
		return nil, errInUse
	}
	defer i.end()
	if why := i.code.module.Unrestorable; len(why) > 0 {
		return nil, fmt.Errorf("engine: no image can hold what the module does: %s", strings.Join(why, ", "))
	}
	if i.broken {
		return nil, errors.New("engine: instance is broken: close it")
	}
	im := &Image{code: i.code}
	im.users.Store(1)
	for _, g := range i.globals {
		im.globals = append(im.globals, g.Get())
	}
	if !i.code.engine.portable && len(i.mem.bytes) > 0 {
		if f, err := newImageFile(i.mem.bytes); err == nil {
			im.file, im.bytes = f, f.image()
			return im, nil
		}
	}
	im.bytes = append([]byte{}, i.mem.bytes...)
	return im, nil
}

// Size returns the size of the image's memory in bytes.
func (im *Image) Size() uint64 { return uint64(len(im.bytes)) }

// Instantiate returns an instance in the state of the image that may have up
// to memoryLimit bytes of memory. Nothing of the module runs. Errors wrap
// ErrMemory when the image is larger; the rest is the host's.
func (im *Image) Instantiate(ctx context.Context, memoryLimit uint64) (*Instance, error) {
	if !im.use() {
		return nil, errors.New("engine: image is closed")
	}
	mem, err := im.code.newMemory(memoryLimit, im.Size(), im)
	if err != nil {
		return nil, errors.Join(err, im.release())
	}
	i, err := im.code.instantiate(ctx, mem, im)
	if err != nil {
		return nil, err
	}
	i.setGlobals()
	return i, nil
}

// Close frees the image, at once or with its last instance.
func (im *Image) Close() error {
	if im.closed.Swap(true) {
		return nil
	}
	return im.release()
}

// use takes a part in the image, which release gives back.
func (im *Image) use() bool {
	for {
		n := im.users.Load()
		if n == 0 || im.closed.Load() {
			return false
		}
		if im.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (im *Image) release() error {
	if im.users.Add(-1) > 0 || im.file == nil {
		return nil
	}
	im.bytes = nil
	return im.file.close()
}
