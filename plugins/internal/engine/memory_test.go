package engine_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/casemate/casemate/plugins/internal/engine"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// grower returns a module whose "grow" grows its memory page by page until it
// is refused, and answers its size in pages.
func grower(limits ...byte) *w.Module {
	var m w.Module
	m.MemoryRaw(limits).ExportRaw("memory", 2, 0)
	m.Export("grow", m.Func(w.Sig("", "i"),
		w.Loop, w.I32(1), w.MemoryGrow, w.I32(-1), opI32Ne, w.BrIf(0), w.End, opMemorySize))
	return &m
}

// TestMemoryLimit: a guest gets what it declares and what it may have,
// whichever is less, before and after it was put back, and never the page that
// putting it back needs.
func TestMemoryLimit(t *testing.T) {
	const page = 64 << 10
	for _, tt := range []struct {
		name    string
		memory  *w.Module
		limit   uint64
		want    int32
		refused bool
	}{
		{"declares none", grower(0, 1), 5 * page, 5, true},
		{"declares more", grower(1, 1, 9), 5 * page, 5, true},
		{"declares as much", grower(1, 1, 5), 5 * page, 5, false},
		{"declares less", grower(1, 1, 3), 5 * page, 3, false},
		{"declares what it has", grower(1, 2, 2), 5 * page, 2, false},
		{"has none", grower(1, 0, 0), 5 * page, 0, false},
		{"begins with none", grower(1, 0, 2), 5 * page, 2, false},
		{"limit within a page", grower(0, 1), 5*page - 1, 4, true},
	} {
		for _, portable := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				e := newEngine(t, engine.Options{Portable: portable})
				in := start(t, image(t, e, tt.memory))
				for range 3 {
					in.SetMemoryLimit(tt.limit)
					if in.GrowRefused() {
						t.Error("refused before the call")
					}
					v, err := in.Call(t.Context(), "grow", plenty)
					if v != tt.want || err != nil || in.GrowRefused() != tt.refused || in.MemorySize() != uint64(v)*page {
						t.Errorf("grew to %d pages, %v, refused %v; want %d, %v", v, err, in.GrowRefused(), tt.want, tt.refused)
					}
					if err := in.Restore(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestTooSmallLimit(t *testing.T) {
	e := newEngine(t, engine.Options{})
	m := grower(0, 2)
	code := compile(t, e, m)
	if _, err := code.Instantiate(t.Context(), code.MinMemory()-1); !errors.Is(err, engine.ErrMemory) {
		t.Errorf("instantiate = %v, want ErrMemory", err)
	}
	im := image(t, e, m)
	if _, err := im.Instantiate(t.Context(), im.Size()-1); !errors.Is(err, engine.ErrMemory) {
		t.Errorf("instantiate an image = %v, want ErrMemory", err)
	}
	if code.MinMemory() != 128<<10 || im.Size() != 128<<10 {
		t.Errorf("least memory %d, image %d", code.MinMemory(), im.Size())
	}
}

// scribbler returns a module whose "run" lets the host scribble into its
// memory, grows it by as many pages as the host says, and lets it scribble
// again.
func scribbler(pages uint32) *w.Module {
	var m w.Module
	m.Import("h", "scribble", w.Sig("", "i"))
	m.Memory(pages)
	m.Export("run", m.Func(w.Sig("", "i"), w.Call(0), w.MemoryGrow, w.Drop, w.Call(0)))
	return &m
}

// TestScribble: whatever a call writes and however it grows, what is put back
// is the image, byte for byte, and what is grown into is zero.
func TestScribble(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	zeros, noise := make([]byte, 6<<16), make([]byte, 9000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var size uint64 // of the image
	fresh := true   // memory beyond it is new to the guest
	scribble := func(c *engine.Caller, stack []uint64) {
		mem, _ := c.Slice(0, uint32(c.Data().(*engine.Instance).MemorySize()))
		if grown := mem[size:]; fresh && !bytes.Equal(grown, zeros[:len(grown)]) {
			t.Error("grown memory is not zero before anyone wrote")
		}
		for range r.IntN(40) {
			copy(mem[r.IntN(len(mem)):], noise[r.IntN(len(noise)):])
		}
		mem[len(mem)-1]++
		stack[0] = uint64(r.IntN(4))
		fresh = len(mem) == int(size)
	}
	host := engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		{Name: "scribble", Sig: w.Sig("", "i"), Fn: scribble},
	}}
	for _, how := range restores {
		t.Run(how.name, func(t *testing.T) {
			e := newEngine(t, engine.Options{Portable: how.portable, Host: []engine.HostModule{host}})
			im := image(t, e, scribbler(how.pages))
			size = im.Size()
			in := start(t, im)
			for range 3400 {
				fresh = true
				if _, err := in.Call(t.Context(), "run", engine.Run{Fuel: plenty.Fuel, Data: in}); err != nil {
					t.Fatal(err)
				}
				if err := in.Restore(); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(engine.Memory(in), engine.ImageBytes(im)) {
					t.Fatal("memory is not that of the image")
				}
			}
		})
	}
}
