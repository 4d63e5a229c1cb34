package wasmgen

import (
	"hash/fnv"
	"math/rand/v2"
)

// source answers the generator's questions: from the seed's bytes while there
// are some, then from numbers that follow from the whole seed.
type source struct {
	seed []byte
	rest *rand.Rand
}

func newSource(seed []byte) *source {
	h := fnv.New64a()
	h.Write(seed)
	return &source{seed, rand.New(rand.NewPCG(h.Sum64(), uint64(len(seed))))}
}

func (s *source) byte() byte {
	if len(s.seed) == 0 {
		return byte(s.rest.Uint32())
	}
	b := s.seed[0]
	s.seed = s.seed[1:]
	return b
}

// n returns a number from 0 to k−1.
func (s *source) n(k int) int {
	if k <= 1 {
		return 0
	}
	v := int(s.byte())
	if k > 256 {
		v = v<<8 | int(s.byte())
	}
	return v % k
}

// one is true once in k times.
func (s *source) one(k int) bool { return s.n(k) == k-1 }

// bits returns 64 bits of a number: often a small or a special one.
func (s *source) bits() uint64 {
	special := []uint64{
		0, 1, 2, 7, 31, 63, 64, 0xff, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
		1 << 63, 1<<63 - 1, 1<<64 - 1,
	}
	switch s.n(3) {
	case 0:
		return special[s.n(len(special))]
	case 1:
		return uint64(s.n(64)) - 16
	}
	var v uint64
	for range 8 {
		v = v<<8 | uint64(s.byte())
	}
	return v
}
