package wasmbin

import (
	"fmt"
	"unicode/utf8"
)

// Reader decodes a part of a binary. After the first mistake it answers zeros,
// and Err says what and where it was.
type Reader struct {
	b    []byte
	pos  int
	base int
	err  error
}

// NewReader returns a reader of b, which begins at byte offset base of the
// binary.
func NewReader(b []byte, base int) *Reader { return &Reader{b: b, base: base} }

// Err returns the first mistake; it wraps ErrMalformed unless Fail was given
// something else.
func (r *Reader) Err() error { return r.err }

// Fail makes err the reader's mistake unless there was one before. Nothing is
// left to read after it.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.b)
}

// Offset returns where in the binary the next byte is.
func (r *Reader) Offset() int { return r.base + r.pos }

// Pos returns how many bytes have been read.
func (r *Reader) Pos() int { return r.pos }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) - r.pos }

func (r *Reader) malformed(what string) {
	r.Fail(fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, r.Offset()))
}

// Peek returns the next byte without reading it, or 0 at the end.
func (r *Reader) Peek() byte {
	if r.pos >= len(r.b) {
		return 0
	}
	return r.b[r.pos]
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if r.pos >= len(r.b) {
		r.malformed("unexpected end")
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

// Bytes reads n bytes. They alias the binary.
func (r *Reader) Bytes(n uint32) []byte {
	if uint64(n) > uint64(r.Len()) {
		r.malformed("unexpected end")
		return nil
	}
	c := r.b[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return c
}

// U32 reads an unsigned number of at most 32 bits.
func (r *Reader) U32() uint32 {
	if r.pos < len(r.b) && r.b[r.pos] < 0x80 {
		r.pos++
		return uint32(r.b[r.pos-1])
	}
	return uint32(r.unsigned(32))
}

// U64 reads an unsigned number of at most 64 bits.
func (r *Reader) U64() uint64 { return r.unsigned(64) }

// S32 reads a signed number of at most 32 bits.
func (r *Reader) S32() int32 { return int32(r.signed(32)) }

// S33 reads a signed number of at most 33 bits.
func (r *Reader) S33() int64 { return r.signed(33) }

// S64 reads a signed number of at most 64 bits.
func (r *Reader) S64() int64 { return r.signed(64) }

// unsigned reads LEB128: at most as many bytes as bits need, and no bit beyond
// them.
func (r *Reader) unsigned(bits uint) uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		if shift >= bits {
			r.malformed("integer representation too long")
			return 0
		}
		c := r.Byte()
		if r.err != nil {
			return 0
		}
		if left := bits - shift; left < 7 && c&0x7f>>left != 0 {
			if c >= 0x80 {
				r.malformed("integer representation too long")
			} else {
				r.malformed("integer too large")
			}
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed is unsigned for numbers with a sign, whose bits beyond the last must
// repeat it.
func (r *Reader) signed(bits uint) int64 {
	var v int64
	for shift := uint(0); ; shift += 7 {
		if shift >= bits {
			r.malformed("integer representation too long")
			return 0
		}
		c := r.Byte()
		if r.err != nil {
			return 0
		}
		if left := bits - shift; left < 7 && c < 0x80 {
			if over := int8(c<<1) >> left; over != 0 && over != -1 {
				r.malformed("integer too large")
				return 0
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if used := shift + 7; used < 64 {
				v = v << (64 - used) >> (64 - used)
			}
			return v
		}
	}
}

// Name reads a name, which must be UTF-8.
func (r *Reader) Name() string {
	at := r.Offset()
	b := r.Bytes(r.U32())
	if r.err == nil && !utf8.Valid(b) {
		r.Fail(fmt.Errorf("%w: malformed UTF-8 encoding in the name at byte %d", ErrMalformed, at))
		return ""
	}
	return string(b)
}

// Count reads how many items follow. Each takes at least one byte, so that a
// count that the rest cannot hold is a mistake.
func (r *Reader) Count() uint32 {
	n := r.U32()
	if uint64(n) > uint64(r.Len()) {
		r.malformed("a count larger than what follows")
		return 0
	}
	return n
}
