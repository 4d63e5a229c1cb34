package engine

// SetSlice changes how much fuel guests of e get between two looks at the
// clock.
func SetSlice(e *Engine, fuel int64) { e.slice = fuel }

// Memory returns the memory of an instance.
func Memory(i *Instance) []byte { return i.mem.bytes }

// ImageBytes returns the memory of an image.
func ImageBytes(im *Image) []byte { return im.bytes }

// Globals returns the bit patterns of an instance's globals.
func Globals(i *Instance) (bits []uint64) {
	for _, g := range i.globals {
		bits = append(bits, g.Get())
	}
	return bits
}

// Functions returns how many functions an instance keeps the stacks of.
func Functions(i *Instance) int { return len(i.funcs) }
