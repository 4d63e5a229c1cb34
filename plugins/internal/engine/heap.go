package engine

// heapSpace is a memory in Go's heap.
type heapSpace struct{ buf []byte }

// newHeapSpace returns a space that begins with the bytes of image, if it is
// not nil.
func newHeapSpace(image *Image) *heapSpace {
	s := &heapSpace{buf: []byte{}}
	if image != nil {
		s.buf = append(s.buf, image.bytes...)
	}
	return s
}

func (s *heapSpace) grow(size, limit uint64) []byte {
	if size > uint64(cap(s.buf)) {
		// Guests grow page by page; copy their memory rarely.
		grown := make([]byte, size, min(max(size, 2*uint64(cap(s.buf))), max(size, limit)))
		copy(grown, s.buf)
		s.buf = grown
	}
	s.buf = s.buf[:size]
	return s.buf[:size:size]
}

// keptRoom is how much more than its image an idle memory may keep, in bytes.
const keptRoom = 1 << 20

func (s *heapSpace) restore(image []byte) ([]byte, error) {
	size := len(image)
	if cap(s.buf) > size+keptRoom {
		s.buf = make([]byte, size)
	}
	if len(s.buf) > size {
		clear(s.buf[size:])
	}
	s.buf = s.buf[:size]
	copy(s.buf, image)
	return s.buf[:size:size], nil
}

func (s *heapSpace) resident() uint64 { return uint64(cap(s.buf)) }

func (s *heapSpace) free() {}
