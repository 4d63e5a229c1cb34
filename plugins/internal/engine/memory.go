package engine

import (
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// space is where the bytes of a memory are.
type space interface {
	// grow returns the first size bytes, or nil when there is no room. It will
	// not be asked for more than limit soon. Bytes that were not handed out
	// since the last restore are zero.
	grow(size, limit uint64) []byte
	// restore makes the first bytes those of image and all others zero, and
	// returns them.
	restore(image []byte) ([]byte, error)
	resident() uint64
	free()
}

// memory is the linear memory of one instance. A runtime's own limit holds for
// all of its modules; this one is per instance and remembers that it refused.
type memory struct {
	space
	bytes   []byte // what the guest has
	most    uint64 // what its module declares, bytes
	limit   uint64
	refused bool
	// forced is answered, whatever is asked, while an instance is put back:
	// wazero has no way to make a memory smaller, but it takes what it gets.
	forced []byte
}

// newMemory returns the memory for an instance that begins with size bytes, of
// image if there is one. A module without a memory gets one that it never
// sees: wazero must not find out by itself that there is a page to spare.
func (c *Code) newMemory(limit, size uint64, image *Image) (*memory, error) {
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes at the start, the limit is %d", ErrMemory, size, limit)
	}
	s := c.newSpace(image)
	m := &memory{space: s, most: c.maxMemory(), limit: limit}
	if m.bytes = s.grow(size, limit); m.bytes == nil {
		s.free()
		return nil, errors.New("engine: no room for the memory of an instance")
	}
	return m, nil
}

// Allocate implements experimental.MemoryAllocator.
func (m *memory) Allocate(uint64, uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	switch {
	case m.forced != nil:
		m.bytes = m.forced
		return m.bytes
	case size <= uint64(len(m.bytes)): // at the start, where an image may be larger
		return m.bytes
	case size > m.most: // the page above is not the guest's
		return nil
	case size > m.limit:
		m.refused = true
		return nil
	}
	grown := m.grow(size, m.limit)
	if grown == nil {
		m.refused = true
		return nil
	}
	m.bytes = grown
	return grown
}

// Free implements experimental.LinearMemory. It does nothing: wazero calls it
// when a runtime closes, and a call might run. See Instance.free.
func (m *memory) Free() {}

// restore puts the memory back to an image; view is wazero's.
func (m *memory) restore(view api.Memory, image []byte) error {
	was := m.bytes
	b, err := m.space.restore(image)
	if err != nil {
		return err
	}
	if len(b) == len(was) && (len(b) == 0 || &b[0] == &was[0]) {
		return nil
	}
	m.forced = b
	_, ok := view.Grow(1)
	m.forced = nil
	if !ok || uint64(view.Size()) != uint64(len(b)) {
		return errors.New("engine: memory cannot be made smaller")
	}
	return nil
}
