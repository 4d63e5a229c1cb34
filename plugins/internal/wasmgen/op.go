package wasmgen

// op is an instruction that takes values and leaves one: no control, no
// variable, no memory.
type op struct {
	code  uint32 // with its prefix in the third byte: 0xfd0023
	in    string // types of operands, one letter each
	out   byte
	lanes int  // of an immediate lane index; 0: none
	canon byte // the type of float lanes that may become a NaN of any payload; 0: none
	div   bool // traps at a divisor of 0
}

// letters are the types of the letters in tables.
var letters = map[byte]byte{'i': I32, 'l': I64, 'f': F32, 'd': F64, 'v': V128}

// span is a range of opcodes of one shape.
type span struct {
	first, last uint32
	in          string
	out         byte
	flags       string // /: div; f, d: canon; 2, 4, 8, g: lanes, g for 16
}

var spans = []span{
	{0x45, 0x45, "i", 'i', ""},
	{0x46, 0x4f, "ii", 'i', ""},
	{0x50, 0x50, "l", 'i', ""},
	{0x51, 0x5a, "ll", 'i', ""},
	{0x5b, 0x60, "ff", 'i', ""},
	{0x61, 0x66, "dd", 'i', ""},
	{0x67, 0x69, "i", 'i', ""},
	{0x6a, 0x6c, "ii", 'i', ""},
	{0x6d, 0x70, "ii", 'i', "/"},
	{0x71, 0x78, "ii", 'i', ""},
	{0x79, 0x7b, "l", 'l', ""},
	{0x7c, 0x7e, "ll", 'l', ""},
	{0x7f, 0x82, "ll", 'l', "/"},
	{0x83, 0x8a, "ll", 'l', ""},
	{0x8b, 0x8c, "f", 'f', ""},
	{0x8d, 0x91, "f", 'f', "f"},
	{0x92, 0x97, "ff", 'f', "f"},
	{0x98, 0x98, "ff", 'f', ""},
	{0x99, 0x9a, "d", 'd', ""},
	{0x9b, 0x9f, "d", 'd', "d"},
	{0xa0, 0xa5, "dd", 'd', "d"},
	{0xa6, 0xa6, "dd", 'd', ""},
	{0xa7, 0xa7, "l", 'i', ""},
	{0xa8, 0xa9, "f", 'i', ""},
	{0xaa, 0xab, "d", 'i', ""},
	{0xac, 0xad, "i", 'l', ""},
	{0xae, 0xaf, "f", 'l', ""},
	{0xb0, 0xb1, "d", 'l', ""},
	{0xb2, 0xb3, "i", 'f', ""},
	{0xb4, 0xb5, "l", 'f', ""},
	{0xb6, 0xb6, "d", 'f', "f"},
	{0xb7, 0xb8, "i", 'd', ""},
	{0xb9, 0xba, "l", 'd', ""},
	{0xbb, 0xbb, "f", 'd', "d"},
	{0xbc, 0xbc, "f", 'i', ""},
	{0xbd, 0xbd, "d", 'l', ""},
	{0xbe, 0xbe, "i", 'f', ""},
	{0xbf, 0xbf, "l", 'd', ""},
	{0xc0, 0xc1, "i", 'i', ""},
	{0xc2, 0xc4, "l", 'l', ""},
	{0xfc0000, 0xfc0001, "f", 'i', ""},
	{0xfc0002, 0xfc0003, "d", 'i', ""},
	{0xfc0004, 0xfc0005, "f", 'l', ""},
	{0xfc0006, 0xfc0007, "d", 'l', ""},
	{0xfd000e, 0xfd000e, "vv", 'v', ""}, // swizzle
	{0xfd000f, 0xfd0011, "i", 'v', ""},  // splat
	{0xfd0012, 0xfd0012, "l", 'v', ""},
	{0xfd0013, 0xfd0013, "f", 'v', ""},
	{0xfd0014, 0xfd0014, "d", 'v', ""},
	{0xfd0015, 0xfd0016, "v", 'i', "g"}, // lanes
	{0xfd0017, 0xfd0017, "vi", 'v', "g"},
	{0xfd0018, 0xfd0019, "v", 'i', "8"},
	{0xfd001a, 0xfd001a, "vi", 'v', "8"},
	{0xfd001b, 0xfd001b, "v", 'i', "4"},
	{0xfd001c, 0xfd001c, "vi", 'v', "4"},
	{0xfd001d, 0xfd001d, "v", 'l', "2"},
	{0xfd001e, 0xfd001e, "vl", 'v', "2"},
	{0xfd001f, 0xfd001f, "v", 'f', "4"},
	{0xfd0020, 0xfd0020, "vf", 'v', "4"},
	{0xfd0021, 0xfd0021, "v", 'd', "2"},
	{0xfd0022, 0xfd0022, "vd", 'v', "2"},
	{0xfd0023, 0xfd004c, "vv", 'v', ""},  // comparisons
	{0xfd004d, 0xfd004d, "v", 'v', ""},   // not
	{0xfd004e, 0xfd0051, "vv", 'v', ""},  // and … xor
	{0xfd0052, 0xfd0052, "vvv", 'v', ""}, // bitselect
	{0xfd0053, 0xfd0053, "v", 'i', ""},   // any_true
	{0xfd005e, 0xfd005e, "v", 'v', "f"},  // f32x4.demote_f64x2_zero
	{0xfd005f, 0xfd005f, "v", 'v', "d"},  // f64x2.promote_low_f32x4
	{0xfd0060, 0xfd0062, "v", 'v', ""},   // i8x16
	{0xfd0063, 0xfd0064, "v", 'i', ""},
	{0xfd0065, 0xfd0066, "vv", 'v', ""},
	{0xfd0067, 0xfd006a, "v", 'v', "f"}, // f32x4 rounding
	{0xfd006b, 0xfd006d, "vi", 'v', ""},
	{0xfd006e, 0xfd0073, "vv", 'v', ""},
	{0xfd0074, 0xfd0075, "v", 'v', "d"}, // f64x2 rounding
	{0xfd0076, 0xfd0079, "vv", 'v', ""},
	{0xfd007a, 0xfd007a, "v", 'v', "d"},
	{0xfd007b, 0xfd007b, "vv", 'v', ""},
	{0xfd007c, 0xfd0081, "v", 'v', ""}, // extadd, i16x8
	{0xfd0082, 0xfd0082, "vv", 'v', ""},
	{0xfd0083, 0xfd0084, "v", 'i', ""},
	{0xfd0085, 0xfd0086, "vv", 'v', ""},
	{0xfd0087, 0xfd008a, "v", 'v', ""},
	{0xfd008b, 0xfd008d, "vi", 'v', ""},
	{0xfd008e, 0xfd0093, "vv", 'v', ""},
	{0xfd0094, 0xfd0094, "v", 'v', "d"},
	{0xfd0095, 0xfd0099, "vv", 'v', ""},
	{0xfd009b, 0xfd009f, "vv", 'v', ""},
	{0xfd00a0, 0xfd00a1, "v", 'v', ""}, // i32x4
	{0xfd00a3, 0xfd00a4, "v", 'i', ""},
	{0xfd00a7, 0xfd00aa, "v", 'v', ""},
	{0xfd00ab, 0xfd00ad, "vi", 'v', ""},
	{0xfd00ae, 0xfd00ae, "vv", 'v', ""},
	{0xfd00b1, 0xfd00b1, "vv", 'v', ""},
	{0xfd00b5, 0xfd00ba, "vv", 'v', ""},
	{0xfd00bc, 0xfd00bf, "vv", 'v', ""},
	{0xfd00c0, 0xfd00c1, "v", 'v', ""}, // i64x2
	{0xfd00c3, 0xfd00c4, "v", 'i', ""},
	{0xfd00c7, 0xfd00ca, "v", 'v', ""},
	{0xfd00cb, 0xfd00cd, "vi", 'v', ""},
	{0xfd00ce, 0xfd00ce, "vv", 'v', ""},
	{0xfd00d1, 0xfd00d1, "vv", 'v', ""},
	{0xfd00d5, 0xfd00df, "vv", 'v', ""},
	{0xfd00e0, 0xfd00e1, "v", 'v', ""}, // f32x4
	{0xfd00e3, 0xfd00e3, "v", 'v', "f"},
	{0xfd00e4, 0xfd00eb, "vv", 'v', "f"},
	{0xfd00ec, 0xfd00ed, "v", 'v', ""}, // f64x2
	{0xfd00ef, 0xfd00ef, "v", 'v', "d"},
	{0xfd00f0, 0xfd00f7, "vv", 'v', "d"},
	{0xfd00f8, 0xfd00ff, "v", 'v', ""}, // conversions
}

// shuffle takes 16 lane indexes instead of one.
const shuffle = 0xfd000d

// ops are all of them by result.
var ops = func() map[byte][]op {
	all := map[byte][]op{V128: {{code: shuffle, in: "vv", out: V128}}}
	for _, s := range spans {
		for code := s.first; code <= s.last; code++ {
			o := op{code: code, in: s.in, out: letters[s.out], div: s.flags == "/"}
			switch s.flags {
			case "g":
				o.lanes = 16
			case "2", "4", "8":
				o.lanes = int(s.flags[0] - '0')
			case "f", "d":
				o.canon = letters[s.flags[0]]
			}
			all[o.out] = append(all[o.out], o)
		}
	}
	return all
}()

// access is a load or a store.
type access struct {
	code  uint32
	typ   byte // loaded or stored
	align int  // most, as a power of two
	lanes int  // of a lane access; 0: whole
}

// loads and stores are all accesses of memory.
var (
	loads = []access{
		{0x28, I32, 2, 0},
		{0x29, I64, 3, 0},
		{0x2a, F32, 2, 0},
		{0x2b, F64, 3, 0},
		{0x2c, I32, 0, 0},
		{0x2d, I32, 0, 0},
		{0x2e, I32, 1, 0},
		{0x2f, I32, 1, 0},
		{0x30, I64, 0, 0},
		{0x31, I64, 0, 0},
		{0x32, I64, 1, 0},
		{0x33, I64, 1, 0},
		{0x34, I64, 2, 0},
		{0x35, I64, 2, 0},
		{0xfd0000, V128, 4, 0},
		{0xfd0001, V128, 3, 0},
		{0xfd0002, V128, 3, 0},
		{0xfd0003, V128, 3, 0},
		{0xfd0004, V128, 3, 0},
		{0xfd0005, V128, 3, 0},
		{0xfd0006, V128, 3, 0},
		{0xfd0007, V128, 0, 0},
		{0xfd0008, V128, 1, 0},
		{0xfd0009, V128, 2, 0},
		{0xfd000a, V128, 3, 0},
		{0xfd005c, V128, 2, 0},
		{0xfd005d, V128, 3, 0},
		{0xfd0054, V128, 0, 16},
		{0xfd0055, V128, 1, 8},
		{0xfd0056, V128, 2, 4},
		{0xfd0057, V128, 3, 2},
	}
	stores = []access{
		{0x36, I32, 2, 0},
		{0x37, I64, 3, 0},
		{0x38, F32, 2, 0},
		{0x39, F64, 3, 0},
		{0x3a, I32, 0, 0},
		{0x3b, I32, 1, 0},
		{0x3c, I64, 0, 0},
		{0x3d, I64, 1, 0},
		{0x3e, I64, 2, 0},
		{0xfd000b, V128, 4, 0},
		{0xfd0058, V128, 0, 16},
		{0xfd0059, V128, 1, 8},
		{0xfd005a, V128, 2, 4},
		{0xfd005b, V128, 3, 2},
	}
)

// loadsOf are the loads by result.
var loadsOf = func() map[byte][]access {
	all := map[byte][]access{}
	for _, a := range loads {
		all[a.typ] = append(all[a.typ], a)
	}
	return all
}()
