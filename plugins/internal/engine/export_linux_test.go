package engine

// SetPageMap lets e read the page map by read.
func SetPageMap(e *Engine, read func(buf []uint64, addr uintptr) error) {
	e.pages = &pageMap{read: read}
}

// ReadPageMap reads the page map of this process.
func ReadPageMap(buf []uint64, addr uintptr) error { return readPageMap(buf, addr) }

// Mapped reports whether an instance's memory is mapped from its image.
func Mapped(i *Instance) bool {
	_, ok := i.mem.space.(*mappedSpace)
	return ok && i.image.file != nil
}
