package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// FramePrefix is the length in bytes of the head length that begins a frame.
const FramePrefix = 4

// ErrFrame is wrapped by the errors of DecodeFrame.
var ErrFrame = errors.New("abi: malformed frame")

// EncodeFrame returns the frame of a capability request or reply: the length
// of head as a little-endian uint32, head (a JSON object), then body as raw
// bytes. Neither is looked into. The frame shares no memory with its arguments.
func EncodeFrame(head, body []byte) []byte {
	frame := make([]byte, 0, FramePrefix+len(head)+len(body))
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(head)))
	frame = append(frame, head...)
	return append(frame, body...)
}

// DecodeFrame splits a frame into its head and its body. Both are slices of
// frame, not copies, and neither is looked into: a head may be empty or hold
// invalid JSON. An error wraps ErrFrame and says what is wrong.
func DecodeFrame(frame []byte) (head, body []byte, err error) {
	if len(frame) < FramePrefix {
		return nil, nil, fmt.Errorf("%w: %d bytes, the head length alone has %d", ErrFrame, len(frame), FramePrefix)
	}
	n := binary.LittleEndian.Uint32(frame)
	rest := frame[FramePrefix:]
	// Compared as uint64: where int has 32 bits a hostile length would turn
	// negative.
	if uint64(n) > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("%w: head of %d bytes in %d", ErrFrame, n, len(rest))
	}
	return rest[:n:n], rest[n:], nil
}
