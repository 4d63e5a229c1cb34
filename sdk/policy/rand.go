package policy

import (
	"math/bits"
	"math/rand/v2"
	"time"
)

// splitMix is the splitmix64 generator: a stream of 64-bit numbers that any
// language can repeat from the seed of a question.
type splitMix struct{ state uint64 }

// Uint64 implements rand.Source.
func (s *splitMix) Uint64() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Rand returns the random numbers of a question's seed, from splitmix64. The
// same seed gives the same numbers.
func Rand(seed int64) *rand.Rand { return rand.New(&splitMix{state: uint64(seed)}) }

// Below returns a whole number from 0 to n−1: the upper half of the 128-bit
// product of n and the next number of r. It returns 0 when n is 0.
func Below(r *rand.Rand, n uint64) uint64 {
	hi, _ := bits.Mul64(r.Uint64(), n)
	return hi
}

// Backoff returns a delay before a try that follows n earlier failed ones of
// the same step: a whole number of milliseconds between 0 and the smaller of
// base·2ⁿ and most, both included, by the first number of seed's stream. The
// spread over the whole range keeps requests that failed together from coming
// back together.
func Backoff(seed int64, n int, base, most time.Duration) time.Duration {
	ceiling := base
	for range n {
		if ceiling >= most/2 {
			ceiling = most
			break
		}
		ceiling *= 2
	}
	ms := max(min(ceiling, most), 0).Milliseconds()
	return time.Duration(Below(Rand(seed), uint64(ms)+1)) * time.Millisecond
}
