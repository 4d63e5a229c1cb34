package wasmgen

import "encoding/binary"

func appendU32[T int | uint32](out []byte, v T) []byte {
	return binary.AppendUvarint(out, uint64(uint32(v)))
}

func appendS64(out []byte, v int64) []byte {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func appendName(out []byte, name string) []byte {
	return append(appendU32(out, len(name)), name...)
}

// appendBytes writes b after its length.
func appendBytes(out, b []byte) []byte {
	return append(appendU32(out, len(b)), b...)
}

func appendSection(out []byte, id byte, body []byte) []byte {
	return appendBytes(append(out, id), body)
}

// appendVector writes a section of count items, if there are any.
func appendVector(out []byte, id byte, count int, items []byte) []byte {
	if count == 0 {
		return out
	}
	return appendSection(out, id, append(appendU32(nil, count), items...))
}

// appendLimits writes limits; max 0 is none.
func appendLimits(out []byte, min, max uint32) []byte {
	if max == 0 {
		return appendU32(append(out, 0), min)
	}
	return appendU32(appendU32(append(out, 1), min), max)
}

// appendConst writes the constant instruction of a numeric type, from 64 bits
// of its value, or a null reference.
func appendConst(out []byte, typ byte, bits uint64) []byte {
	switch typ {
	case I32:
		return appendS64(append(out, 0x41), int64(int32(bits)))
	case I64:
		return appendS64(append(out, 0x42), int64(bits))
	case F32:
		return binary.LittleEndian.AppendUint32(append(out, 0x43), uint32(bits))
	case F64:
		return binary.LittleEndian.AppendUint64(append(out, 0x44), bits)
	case V128:
		return appendV128(out, bits, ^bits)
	}
	return append(out, 0xd0, typ)
}

func appendV128(out []byte, low, high uint64) []byte {
	out = binary.LittleEndian.AppendUint64(append(out, 0xfd, 12), low)
	return binary.LittleEndian.AppendUint64(out, high)
}

// appendOpcode writes an opcode that may have a prefix in its third byte.
func appendOpcode(out []byte, code uint32) []byte {
	if code <= 0xff {
		return append(out, byte(code))
	}
	return appendU32(append(out, byte(code>>16)), code&0xffff)
}
