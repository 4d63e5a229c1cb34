package engine

import "github.com/tetratelabs/wazero/api"

const pageSize = 64 << 10

// memory is the linear memory of one instance, in bytes of the Go heap. A
// runtime's own limit holds for all of its modules; this one is per instance
// and remembers that it refused.
type memory struct {
	limit   uint64
	buf     []byte
	refused bool
}

// Reallocate implements experimental.LinearMemory. The bytes of a size that
// was never handed out before are zero.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	if size > uint64(cap(m.buf)) {
		// Guests grow page by page; copy their memory rarely.
		grown := make([]byte, size, min(max(size, 2*uint64(cap(m.buf))), m.limit))
		copy(grown, m.buf)
		m.buf = grown
	}
	m.buf = m.buf[:size]
	return m.buf
}

// Free implements experimental.LinearMemory. The length stays for MemorySize.
func (m *memory) Free() {}

// Memory is the memory of the guest that called a host function.
type Memory struct{ m api.Memory }

// Slice returns the n bytes at ptr, or false when they are not all inside. It
// aliases the guest's memory: it must not be kept beyond the host function.
func (m Memory) Slice(ptr, n uint32) ([]byte, bool) {
	if m.m == nil {
		return nil, false
	}
	return m.m.Read(ptr, n)
}
