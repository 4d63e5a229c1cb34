package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/engine"
)

// TestMapped: on this system images are mapped, and a large one is put back
// page by page: what stays in memory is what a call wrote to.
func TestMapped(t *testing.T) {
	for _, how := range restores {
		e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
		in := start(t, image(t, e, testGuest(how.pages)))
		if got := engine.Mapped(in); got != !how.portable {
			t.Errorf("%s: mapped %v", how.name, got)
		}
		idle := in.Resident()
		if _, err := in.Call(t.Context(), "count", plenty); err != nil {
			t.Fatal(err)
		}
		if err := in.Restore(); err != nil {
			t.Fatal(err)
		}
		held := in.Resident()
		if small := held < idle+10*uint64(os.Getpagesize()); small != (how.name == "large image" || how.portable) {
			t.Errorf("%s: %d bytes are held before a call, %d after it", how.name, idle, held)
		}
	}
}

// TestPageMapLies: a page map that misses a page that was written to is never
// trusted again, and the instance is put back all the same.
func TestPageMapLies(t *testing.T) {
	zeros := func(buf []uint64, _ uintptr) error {
		clear(buf)
		return nil
	}
	for _, tt := range []struct {
		name string
		lie  func(buf []uint64, addr uintptr) error
	}{
		{"zeros", zeros},
		{"clean", func(buf []uint64, _ uintptr) error {
			for i := range buf {
				buf[i] = 1<<63 | 1<<61 // present, of a file
			}
			return nil
		}},
		{"error", func([]uint64, uintptr) error { return errors.New("no page map") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
			scans := 0
			engine.SetPageMap(e, func(buf []uint64, addr uintptr) error {
				if scans++; scans > 3 {
					return tt.lie(buf, addr)
				}
				return engine.ReadPageMap(buf, addr)
			})
			im := image(t, e, testGuest(6))
			in, other := start(t, im), start(t, im)
			for range 10 {
				for _, in := range []*engine.Instance{in, other} {
					if _, err := in.Call(t.Context(), "grow", plenty); err != nil {
						t.Fatal(err)
					}
					if err := in.Restore(); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(engine.Memory(in), engine.ImageBytes(im)) {
						t.Error("memory is not that of the image")
					}
				}
			}
			if scans != 4 {
				t.Errorf("%d scans, want no more after the one that lied", scans)
			}
		})
	}
}

// manyPages is a memory of more pages than are copied back one by one, in pages
// of 64 KiB where those of the system have 4.
const manyPages = 160

// TestPageMapFreezes: a page map that tells for ever what it told once is found
// out, also when that was after the canary had been written to.
func TestPageMapFreezes(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	var frozen []uint64
	var at uintptr
	engine.SetPageMap(e, func(buf []uint64, addr uintptr) error {
		at = addr
		if frozen != nil {
			copy(buf, frozen)
			return nil
		}
		return engine.ReadPageMap(buf, addr)
	})
	im := image(t, e, testGuest(manyPages))
	in := start(t, im)
	fill := func(c *engine.Caller) {
		b, _ := c.Slice(0, manyPages<<16)
		for i := range b {
			b[i] = 0xff
		}
	}
	for _, do := range []func(*engine.Caller){fill, func(*engine.Caller) {}} {
		if _, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: &state{run: do}}); err != nil {
			t.Fatal(err)
		}
		if err := in.Restore(); err != nil {
			t.Fatal(err)
		}
		if frozen == nil { // as it is now, with every page dropped
			frozen = make([]uint64, 1+manyPages<<16/os.Getpagesize())
			if err := engine.ReadPageMap(frozen, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(engine.Memory(in), engine.ImageBytes(im)) {
		t.Error("memory is not that of the image")
	}
}

// TestManyPages: beyond a number of pages, those that were written to are
// dropped and not copied.
func TestManyPages(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	im := image(t, e, testGuest(manyPages))
	in := start(t, im)
	fill := func(c *engine.Caller) {
		b, _ := c.Slice(0, manyPages<<16)
		for i := range b {
			b[i] = 0xff
		}
	}
	for range 3 {
		if _, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: &state{run: fill}}); err != nil {
			t.Fatal(err)
		}
		if err := in.Restore(); err != nil {
			t.Fatal(err)
		}
		if in.Resident() > 1<<20 {
			t.Errorf("%d bytes are held", in.Resident())
		}
		pristine(t, in, im)
	}
}

// TestStalePages: what one call wrote to is not copied back for ever.
func TestStalePages(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	im := image(t, e, testGuest(6))
	in := start(t, im)
	fill := func(c *engine.Caller) {
		b, _ := c.Slice(0, 6<<16)
		clear(b)
	}
	most := uint64(0)
	for i := range 2000 {
		do := func(*engine.Caller) {}
		if i == 10 {
			do = fill
		}
		if _, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: &state{run: do}}); err != nil {
			t.Fatal(err)
		}
		if err := in.Restore(); err != nil {
			t.Fatal(err)
		}
		most = max(most, in.Resident())
	}
	if left := in.Resident(); most < 6<<16 || left > most-5<<16 {
		t.Errorf("%d bytes were held at most, %d at the end; want most of them given back", most, left)
	}
	pristine(t, in, im)
}

// TestSealed: nobody can change an image by its file.
func TestSealed(t *testing.T) {
	e := newEngine(t, engine.Options{Host: []engine.HostModule{testHost}})
	im := image(t, e, testGuest(6))
	want := bytes.Clone(engine.ImageBytes(im))
	found := 0
	for path := range files(t) {
		if to, _ := os.Readlink(path); !strings.Contains(to, "casemate-image") {
			continue
		}
		found++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // that is as good
		}
		if _, err := f.WriteAt([]byte{1}, 8192); err == nil {
			t.Error("an image was written to")
		}
		if err := f.Truncate(0); err == nil {
			t.Error("an image was cut")
		}
		f.Close()
	}
	if found != 1 || !bytes.Equal(engine.ImageBytes(im), want) {
		t.Errorf("%d image files; want one that stays as it is", found)
	}
}

// TestNothingStays: instances and images give back what they had of the
// system.
func TestNothingStays(t *testing.T) {
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{testHost}})
			code := compile(t, e, testGuest(how.pages))
			life := func() {
				for range 6 {
					first, err := code.Instantiate(t.Context(), limit)
					if err != nil {
						t.Fatal(err)
					}
					im, err := first.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					in, err := im.Instantiate(t.Context(), limit)
					if err != nil {
						t.Fatal(err)
					}
					for _, ev := range events {
						happen(t, in, ev.name, ev.fuel, ev.wall, ev.ends)
						if err := in.Restore(); err != nil {
							t.Fatal(err)
						}
					}
					if err := im.Close(); err != nil {
						t.Fatal(err)
					}
					first.Close(t.Context())
					in.Close(t.Context())
					if _, err := im.Instantiate(t.Context(), limit); err == nil {
						t.Error("a closed image made an instance")
					}
				}
			}
			life()
			routines, open, mapped := runtime.NumGoroutine(), len(files(t)), regions(t)
			life()
			if n := runtime.NumGoroutine(); n > routines {
				t.Errorf("%d goroutines, %d before", n, routines)
			}
			if n := len(files(t)); n > open {
				t.Errorf("%d files, %d before", n, open)
			}
			if n := regions(t); n > mapped {
				t.Errorf("%d mappings of instances and images, %d before", n, mapped)
			}
		})
	}
}

// files returns the paths of this process's file descriptors.
func files(t *testing.T) map[string]bool {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, f := range list {
		paths["/proc/self/fd/"+f.Name()] = true
	}
	return paths
}

// regions returns how many mappings of this process are of images, or so large
// that they are of memories.
func regions(t *testing.T) (n int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "casemate-image") || to-from > 1<<32-1<<24 {
			n++
		}
	}
	return n
}
