package rewrite

// operation is what an instruction without control flow takes and gives.
type operation struct {
	in    [3]byte // types popped, the first one first
	n     byte    // how many
	out   byte    // type pushed; 0: none
	imm   immediate
	align byte // of the memory: log2; of lanes: how many there are
	lanes byte
	ok    bool
}

// immediate is what follows an opcode.
type immediate byte

const (
	immNone    immediate = iota
	immMem               // alignment and offset
	immLane              // the index of a lane
	immMemLane           // both
	immShuffle           // 16 indexes of 32 lanes
	immV128              // 16 bytes
)

var letters = map[rune]byte{'i': i32, 'l': i64, 'f': f32, 'd': f64, 'v': v128}

// op reads a signature like "il>f".
func op(sig string) operation {
	o := operation{ok: true}
	in := true
	for _, c := range sig {
		switch {
		case c == '>':
			in = false
		case in:
			o.in[o.n] = letters[c]
			o.n++
		default:
			o.out = letters[c]
		}
	}
	return o
}

func (o operation) mem(align byte) operation {
	o.imm, o.align = immMem, align
	return o
}

func (o operation) lane(lanes byte) operation {
	o.imm, o.lanes = immLane, lanes
	return o
}

// numeric are the operations of one byte: memory, comparison, arithmetic,
// conversion.
var numeric = func() (t [256]operation) {
	for _, r := range []struct {
		from, to byte
		sig      string
	}{
		{0x45, 0x45, "i>i"},
		{0x46, 0x4f, "ii>i"},
		{0x50, 0x50, "l>i"},
		{0x51, 0x5a, "ll>i"},
		{0x5b, 0x60, "ff>i"},
		{0x61, 0x66, "dd>i"},
		{0x67, 0x69, "i>i"},
		{0x6a, 0x78, "ii>i"},
		{0x79, 0x7b, "l>l"},
		{0x7c, 0x8a, "ll>l"},
		{0x8b, 0x91, "f>f"},
		{0x92, 0x98, "ff>f"},
		{0x99, 0x9f, "d>d"},
		{0xa0, 0xa6, "dd>d"},
		{0xa7, 0xa7, "l>i"},
		{0xa8, 0xa9, "f>i"},
		{0xaa, 0xab, "d>i"},
		{0xac, 0xad, "i>l"},
		{0xae, 0xaf, "f>l"},
		{0xb0, 0xb1, "d>l"},
		{0xb2, 0xb3, "i>f"},
		{0xb4, 0xb5, "l>f"},
		{0xb6, 0xb6, "d>f"},
		{0xb7, 0xb8, "i>d"},
		{0xb9, 0xba, "l>d"},
		{0xbb, 0xbb, "f>d"},
		{0xbc, 0xbc, "f>i"},
		{0xbd, 0xbd, "d>l"},
		{0xbe, 0xbe, "i>f"},
		{0xbf, 0xbf, "l>d"},
		{0xc0, 0xc1, "i>i"},
		{0xc2, 0xc4, "l>l"},
	} {
		for c := int(r.from); c <= int(r.to); c++ {
			t[c] = op(r.sig)
		}
	}
	for i, s := range []struct {
		sig   string
		align byte
	}{
		{"i>i", 2},
		{"i>l", 3},
		{"i>f", 2},
		{"i>d", 3},
		{"i>i", 0},
		{"i>i", 0},
		{"i>i", 1},
		{"i>i", 1},
		{"i>l", 0},
		{"i>l", 0},
		{"i>l", 1},
		{"i>l", 1},
		{"i>l", 2},
		{"i>l", 2},
		{"ii>", 2},
		{"il>", 3},
		{"if>", 2},
		{"id>", 3},
		{"ii>", 0},
		{"ii>", 1},
		{"il>", 0},
		{"il>", 1},
		{"il>", 2},
	} {
		t[0x28+i] = op(s.sig).mem(s.align)
	}
	return t
}()

// saturating are the conversions behind 0xfc, which has 8 of them.
var saturating = [8]operation{
	op("f>i"), op("f>i"), op("d>i"), op("d>i"), op("f>l"), op("f>l"), op("d>l"), op("d>l"),
}

// vector are the operations behind 0xfd.
var vector = func() (t [256]operation) {
	set := func(o operation, codes ...int) {
		for _, c := range codes {
			t[c] = o
		}
	}
	span := func(o operation, from, to int) {
		for c := from; c <= to; c++ {
			t[c] = o
		}
	}
	vectorMemory(set, span)
	vectorLanes(set)
	unary, binary, shift, test := op("v>v"), op("vv>v"), op("vi>v"), op("v>i")
	span(binary, 0x23, 0x4c)
	set(unary, 0x4d)
	span(binary, 0x4e, 0x51)
	set(op("vvv>v"), 0x52)
	set(test, 0x53, 0x63, 0x64, 0x83, 0x84, 0xa3, 0xa4, 0xc3, 0xc4)
	set(unary, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x67, 0x68, 0x69, 0x6a, 0x74, 0x75, 0x7a)
	span(unary, 0x7c, 0x81)
	span(unary, 0x87, 0x8a)
	set(unary, 0x94, 0xa0, 0xa1, 0xc0, 0xc1, 0xe0, 0xe1, 0xe3, 0xec, 0xed, 0xef)
	span(unary, 0xa7, 0xaa)
	span(unary, 0xc7, 0xca)
	span(unary, 0xf8, 0xff)
	for _, from := range []int{0x6b, 0x8b, 0xab, 0xcb} {
		span(shift, from, from+2)
	}
	for _, r := range [][2]int{
		{0x65, 0x66},
		{0x6e, 0x73},
		{0x76, 0x79},
		{0x7b, 0x7b},
		{0x82, 0x82},
		{0x85, 0x86},
		{0x8e, 0x93},
		{0x95, 0x99},
		{0x9b, 0x9f},
		{0xae, 0xae},
		{0xb1, 0xb1},
		{0xb5, 0xba},
		{0xbc, 0xbf},
		{0xce, 0xce},
		{0xd1, 0xd1},
		{0xd5, 0xdf},
		{0xe4, 0xeb},
		{0xf0, 0xf7},
	} {
		span(binary, r[0], r[1])
	}
	return t
}()

func vectorMemory(set func(operation, ...int), span func(operation, int, int)) {
	load, store := op("i>v"), op("iv>")
	set(load.mem(4), 0x00)
	span(load.mem(3), 0x01, 0x06)
	set(load.mem(0), 0x07)
	set(load.mem(1), 0x08)
	set(load.mem(2), 0x09, 0x5c)
	set(load.mem(3), 0x0a, 0x5d)
	set(store.mem(4), 0x0b)
	for i := range 4 {
		lane := op("iv>v").mem(byte(i))
		lane.imm, lane.lanes = immMemLane, 16>>i
		set(lane, 0x54+i)
		lane.out = 0
		set(lane, 0x58+i)
	}
}

func vectorLanes(set func(operation, ...int)) {
	constant := op(">v")
	constant.imm = immV128
	set(constant, 0x0c)
	shuffle := op("vv>v")
	shuffle.imm = immShuffle
	set(shuffle, 0x0d)
	set(op("vv>v"), 0x0e)
	set(op("i>v"), 0x0f, 0x10, 0x11)
	set(op("l>v"), 0x12)
	set(op("f>v"), 0x13)
	set(op("d>v"), 0x14)
	set(op("v>i").lane(16), 0x15, 0x16)
	set(op("vi>v").lane(16), 0x17)
	set(op("v>i").lane(8), 0x18, 0x19)
	set(op("vi>v").lane(8), 0x1a)
	set(op("v>i").lane(4), 0x1b)
	set(op("vi>v").lane(4), 0x1c)
	set(op("v>l").lane(2), 0x1d)
	set(op("vl>v").lane(2), 0x1e)
	set(op("v>f").lane(4), 0x1f)
	set(op("vf>v").lane(4), 0x20)
	set(op("v>d").lane(2), 0x21)
	set(op("vd>v").lane(2), 0x22)
}
