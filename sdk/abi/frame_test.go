package abi_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/casemate/casemate/sdk/abi"
)

func FuzzDecodeFrame(f *testing.F) {
	v := load(f)
	for _, frame := range append(v.Frames, v.BadFrames...) {
		f.Add(unhex(f, frame.Frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		head, body, err := abi.DecodeFrame(frame)
		if err != nil {
			if len(frame) >= abi.FramePrefix && uint64(binary.LittleEndian.Uint32(frame)) <= uint64(len(frame)-abi.FramePrefix) {
				t.Errorf("a sound frame of %d bytes was refused: %v", len(frame), err)
			}
			return
		}
		if again := abi.EncodeFrame(head, body); !bytes.Equal(again, frame) {
			t.Errorf("encoded again: got %x, want %x", again, frame)
		}
		// The head's slice must not reach into the body.
		if _ = append(head, '?'); !bytes.Equal(frame, before) {
			t.Errorf("an append to the head changed body %q", body)
		}
	})
}

func FuzzCanonicalJSON(f *testing.F) {
	v := load(f)
	for _, c := range append(v.Canonical, v.NotCanonical...) {
		f.Add(unhex(f, c.In))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := abi.CanonicalJSON(data)
		if err != nil {
			return
		}
		twice, err := abi.CanonicalJSON(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("of %q: got %s, then %s, %v", data, once, twice, err)
		}
	})
}
