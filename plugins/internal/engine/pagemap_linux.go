package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The bits of an entry of /proc/self/pagemap that are readable without any
// privilege.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61 // or shared
)

// pageMap tells which pages of a private mapping are copies of its own: those
// that were written to since they were last dropped.
type pageMap struct {
	// read fills buf with the entries of the pages from the given address on.
	read func(buf []uint64, addr uintptr) error
	// broken is set for good when the map was seen to miss a written page, as
	// some sandboxes and emulators make it, or cannot be read.
	broken atomic.Bool
}

// processPages is the page map of this process.
var processPages = &pageMap{read: readPageMap}

// openPageMap opens the page map once; it stays open.
var openPageMap = sync.OnceValues(func() (fd int, err error) {
	return unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
})

func readPageMap(buf []uint64, addr uintptr) error {
	fd, err := openPageMap()
	if err != nil {
		return err
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buf))), 8*len(buf))
	n, err := unix.Pread(fd, b, int64(addr)/int64(osPage)*8)
	if err == nil && n < len(b) {
		err = errors.New("engine: page map is short")
	}
	return err
}

// entries holds buffers for the entries of one scan.
var entries = sync.Pool{New: func() any { return new([]uint64) }}

// restore copies back from image what was written to in region, which is one
// page that was written to just now, the canary, and the memory. It returns
// how many pages of memory were written to; when there are more than maxHot it
// has copied none. ok is false when the page map is not to be trusted.
func (p *pageMap) restore(region, image []byte) (hot int, ok bool) {
	pooled := entries.Get().(*[]uint64)
	defer entries.Put(pooled)
	n := len(region) / osPage
	if cap(*pooled) < n {
		*pooled = make([]uint64, n)
	}
	buf := (*pooled)[:n]
	err := p.read(buf, uintptr(unsafe.Pointer(&region[0])))
	if err != nil || !written(buf[0]) {
		p.broken.Store(true)
		return 0, false
	}
	buf = buf[1:]
	for _, e := range buf {
		if written(e) {
			hot++
		}
	}
	if hot > maxHot {
		return hot, true
	}
	copyWritten(region[osPage:], image, buf)
	return hot, true
}

// copyWritten copies the written pages, neighbours at once.
func copyWritten(mem, image []byte, buf []uint64) {
	for from := 0; from < len(buf); {
		if !written(buf[from]) {
			from++
			continue
		}
		to := from + 1
		for to < len(buf) && written(buf[to]) {
			to++
		}
		copy(mem[from*osPage:to*osPage], image[from*osPage:to*osPage])
		from = to
	}
}

// written reports whether a page of a private file mapping is a copy.
func written(entry uint64) bool {
	return entry&(pagePresent|pageSwapped) != 0 && entry&pageOfFile == 0
}
