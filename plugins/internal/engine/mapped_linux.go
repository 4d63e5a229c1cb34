package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osPage is the unit of the page map.
var osPage = os.Getpagesize()

// imageFile is an image in memory that belongs to a file descriptor, sealed so
// that nobody can change it. Instances map it privately: what they only read
// exists once. Its first page is no part of the image but the canary.
type imageFile struct {
	fd   int
	view []byte // all of the file, only to be read
}

func newImageFile(image []byte) (_ *imageFile, err error) {
	fd, err := unix.MemfdCreate("casemate-image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("engine: image: %w", err)
	}
	f := &imageFile{fd: fd}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	size := osPage + len(image)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, fmt.Errorf("engine: image: %w", err)
	}
	if err := writeSparse(fd, image, int64(osPage)); err != nil {
		return nil, fmt.Errorf("engine: image: %w", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("engine: image: seal: %w", err)
	}
	// A private view: kernels before 6.7 allow no other of a sealed file.
	f.view, err = unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("engine: image: map: %w", err)
	}
	return f, nil
}

// writeSparse writes b at off, leaving holes for pages of zeros.
func writeSparse(fd int, b []byte, off int64) error {
	zero := make([]byte, osPage)
	for len(b) > 0 {
		n := 0
		for n < len(b) && !bytes.Equal(b[n:n+osPage], zero) {
			n += osPage
		}
		for done := 0; done < n; {
			k, err := unix.Pwrite(fd, b[done:n], off+int64(done))
			if err != nil {
				return err
			}
			done += k
		}
		n = min(n+osPage, len(b))
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (f *imageFile) image() []byte { return f.view[osPage:] }

func (f *imageFile) close() error {
	if f.view != nil {
		if err := unix.Munmap(f.view); err != nil {
			return fmt.Errorf("engine: image: unmap: %w", err)
		}
	}
	return unix.Close(f.fd)
}

// mappedSpace is a memory in address space of its own, reserved for as much as
// the module declares, so that it never moves. In front of it is the canary.
type mappedSpace struct {
	region []byte // canary, then memory
	pages  *pageMap
	high   uint64 // bytes handed out since the last restore
	held   uint64 // bytes that the last restore left in memory
	scans  int    // since the pages were dropped last
	usual  int    // pages that the first of these scans found
}

// newMappedSpace reserves room for most bytes, which begin with those of f if
// it is not nil.
func newMappedSpace(most uint64, f *imageFile, pages *pageMap) (*mappedSpace, error) {
	length := uintptr(osPage) + uintptr(most)
	const access = unix.PROT_READ | unix.PROT_WRITE
	const private = unix.MAP_PRIVATE | unix.MAP_NORESERVE
	base, err := unix.MmapPtr(-1, 0, nil, length, access, private|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("engine: reserve memory: %w", err)
	}
	s := &mappedSpace{region: unsafe.Slice((*byte)(base), length), pages: pages}
	if f != nil {
		size := len(f.view)
		if _, err := unix.MmapPtr(f.fd, 0, base, uintptr(size), access, private|unix.MAP_FIXED); err != nil {
			s.free()
			return nil, fmt.Errorf("engine: map image: %w", err)
		}
		s.high = uint64(size - osPage)
	}
	// One small write must not cost two megabytes, and the page map is to be
	// one of small pages. A kernel without huge pages refuses, rightly.
	_ = unix.Madvise(s.region, unix.MADV_NOHUGEPAGE)
	return s, nil
}

func (s *mappedSpace) grow(size, _ uint64) []byte {
	if size > uint64(len(s.region)-osPage) {
		return nil
	}
	s.high = max(s.high, size)
	return s.first(size)
}

// first returns the first size bytes of the memory.
func (s *mappedSpace) first(size uint64) []byte {
	return s.region[osPage:][:size:size]
}

// copyBelow is up to which size an image is copied back whole, in bytes: for
// as long as that takes less time than asking the kernel what changed, about
// half a microsecond.
const copyBelow = 64 << 10

// staleAfter is how many restores make up for dropping the pages.
const staleAfter = 1024

// maxHot is up to how many pages are copied back one by one. Beyond, they are
// dropped: the next call pays for what it touches.
const maxHot = 2048

func (s *mappedSpace) restore(image []byte) ([]byte, error) {
	size := uint64(len(image))
	if s.high > size {
		if err := unix.Madvise(s.region[osPage:][size:s.high], unix.MADV_DONTNEED); err != nil {
			return nil, fmt.Errorf("engine: drop grown memory: %w", err)
		}
		s.high = size
	}
	mem := s.first(size)
	if size <= copyBelow || s.pages.broken.Load() {
		copy(mem, image)
		s.held = size
		return mem, nil
	}
	s.region[0]++ // the canary
	hot, ok := s.pages.restore(s.region[:osPage+len(mem)], image)
	if !ok {
		copy(mem, image)
		s.held = size
		return mem, nil
	}
	s.held = uint64(hot * osPage)
	if hot > maxHot || s.stale(hot) {
		// The canary with them: a map that tells for ever what it told once is
		// seen to miss the write before the next scan.
		if err := unix.Madvise(s.region[:osPage+len(mem)], unix.MADV_DONTNEED); err != nil {
			return nil, fmt.Errorf("engine: drop memory: %w", err)
		}
		s.held, s.scans = 0, 0
	}
	return mem, nil
}

// stale reports whether most of the pages that are copied back are those that
// some call wrote to long ago: they are found in every scan until they are
// dropped.
func (s *mappedSpace) stale(hot int) bool {
	if s.scans++; s.scans == 1 {
		s.usual = hot
	}
	return s.scans >= staleAfter && hot > 2*s.usual
}

func (s *mappedSpace) resident() uint64 { return s.held }

func (s *mappedSpace) free() {
	if s.region != nil {
		_ = unix.MunmapPtr(unsafe.Pointer(&s.region[0]), uintptr(len(s.region)))
		s.region = nil
	}
}

// newSpace returns the space for an instance of c, with room for the most that
// it declares. Where address space is limited, or all memory accounted for, it
// is in the heap.
func (c *Code) newSpace(image *Image) space {
	if c.engine.portable || c.maxMemory() == 0 || image != nil && image.file == nil {
		return newHeapSpace(image)
	}
	var f *imageFile
	if image != nil {
		f = image.file
	}
	s, err := newMappedSpace(c.maxMemory(), f, c.engine.pages)
	if err != nil {
		return newHeapSpace(image)
	}
	return s
}
