package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/casemate/casemate/sdk/abi"
)

// ErrSection is wrapped when a binary's sections cannot be walked, or when
// abi.Section is there twice or too large.
var ErrSection = errors.New("manifest: bad section")

const headerLen = 8

// ReadSection returns the content of abi.Section in a Wasm binary: a slice of
// wasm, not a copy, and not looked into. ok is false when there is none.
// Errors wrap ErrSection.
func ReadSection(wasm []byte) (data []byte, ok bool, err error) {
	err = eachSection(wasm, func(s section) error {
		if !s.ours {
			return nil
		}
		if ok {
			return fmt.Errorf("%w: custom section %q is there twice", ErrSection, abi.Section)
		}
		if len(s.data) > MaxDescriptor {
			return fmt.Errorf("%w: custom section %q has %d bytes, more than %d", ErrSection, abi.Section, len(s.data), MaxDescriptor)
		}
		data, ok = s.data, true
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return data, ok, nil
}

// WriteSection returns a copy of wasm whose only abi.Section holds data, at
// the end: packing the same data twice gives the same bytes. Errors wrap
// ErrSection.
func WriteSection(wasm, data []byte) ([]byte, error) {
	if len(data) > MaxDescriptor {
		return nil, fmt.Errorf("%w: %d bytes to pack, more than %d", ErrSection, len(data), MaxDescriptor)
	}
	out := make([]byte, 0, len(wasm)+len(abi.Section)+len(data)+16)
	if len(wasm) >= headerLen {
		out = append(out, wasm[:headerLen]...)
	}
	err := eachSection(wasm, func(s section) error {
		if !s.ours {
			out = append(out, s.whole...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	body := binary.AppendUvarint(nil, uint64(len(abi.Section)))
	body = append(body, abi.Section...)
	body = append(body, data...)
	out = append(out, 0)
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...), nil
}

// section is one section of a binary.
type section struct {
	whole []byte // id, size and body
	ours  bool   // the custom section named abi.Section
	data  []byte // the body after the name, when ours
}

// eachSection calls visit for each section in order.
func eachSection(wasm []byte, visit func(section) error) error {
	if len(wasm) < headerLen || !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) {
		return fmt.Errorf("%w: not a core WebAssembly module", ErrSection)
	}
	for rest := wasm[headerLen:]; len(rest) > 0; {
		size, n := uvarint(rest[1:])
		if n == 0 || size > uint64(len(rest)-1-n) {
			return fmt.Errorf("%w: section with id %d is cut off", ErrSection, rest[0])
		}
		end := 1 + n + int(size)
		s := section{whole: rest[:end]}
		if rest[0] == 0 {
			s.data, s.ours = named(rest[1+n : end])
		}
		if err := visit(s); err != nil {
			return err
		}
		rest = rest[end:]
	}
	return nil
}

// named splits the name off the body of a custom section and reports whether
// it is abi.Section. A name that is cut off is not ours; the compiler refuses
// it.
func named(body []byte) (data []byte, ours bool) {
	size, n := uvarint(body)
	if n == 0 || size > uint64(len(body)-n) {
		return nil, false
	}
	end := n + int(size)
	if string(body[n:end]) != abi.Section {
		return nil, false
	}
	return body[end:], true
}

// uvarint reads an unsigned LEB128 number of 32 bits; n is 0 when there is none.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || v > math.MaxUint32 {
		return 0, 0
	}
	return v, n
}
