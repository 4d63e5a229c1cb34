package engine_test

import (
	"errors"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmtest"
)

// TestReadersAgree gives the rewriter instructions that it could read in
// another way than wazero, which reads some numbers as one byte where the
// format has several. What one of them takes for a constant the other would
// run.
func TestReadersAgree(t *testing.T) {
	vector := append([]byte{0xfd, 12}, make([]byte, 16)...)
	hidden := []byte{
		0x0b,                                           // end
		0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x08, // i64.const
		0x24, 0, // global.set: the fuel, in a module without globals
		0x02, 0x40, // block
		0x0c, 0, // br
		0x01, // nop
	}
	drops := wasmtest.Seq(wasmtest.Drop, wasmtest.Drop, wasmtest.Drop)
	forged := func(opcode ...byte) []byte {
		return wasmtest.Seq(wasmtest.Block, wasmtest.I32(1), wasmtest.BrIf(0),
			vector, wasmtest.I32(0), opcode, hidden, drops, wasmtest.End)
	}
	tests := []struct {
		name string
		code []byte
		ok   bool
	}{
		{"v128.const", wasmtest.Seq(vector, wasmtest.Drop), true},
		{"f32x4.abs, with the byte that wazero takes for a nop", wasmtest.Seq(vector, []byte{0xfd, 0xe0, 1}, wasmtest.Drop), true},
		{"v128.const in two bytes: i16x8.shr_s for wazero, and the constant is code", forged(0xfd, 0x8c, 0), false},
		{"v128.const in three bytes", forged(0xfd, 0x8c, 0x80, 0), false},
		{"f64x2.promote_low_f32x4 in two bytes", wasmtest.Seq(vector, []byte{0xfd, 0xdf, 0}, wasmtest.Drop), false},
		{"f32x4.abs in three bytes", wasmtest.Seq(vector, []byte{0xfd, 0xe0, 0x81, 0}, wasmtest.Drop), false},
		{"i32.trunc_sat_f32_s in three bytes", []byte{0x43, 0, 0, 0, 0, 0xfc, 0x80, 0x80, 0, 0x1a}, true},
		{"select of one type, counted in two bytes", []byte{0x41, 0, 0x41, 0, 0x41, 0, 0x1c, 0x81, 0, 0x7f, 0x1a}, false},
		{"memory.size with its index in two bytes", []byte{0x3f, 0x80, 0, 0x1a}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m wasmtest.Module
			m.Memory(1)
			m.Export("f", m.Func(wasmtest.Sig("", ""), tt.code))
			_, err := rewrite.Rewrite(m.Bytes())
			if (err == nil) != tt.ok {
				t.Fatalf("got error %v, want one: %v", err, !tt.ok)
			}
			if err != nil && !errors.Is(err, rewrite.ErrMalformed) && !errors.Is(err, rewrite.ErrUnsupported) {
				t.Errorf("%v is neither malformed nor unsupported", err)
			}
			if err := newTestbed(t, false).compile(m.Bytes()); tt.ok && err != nil {
				t.Errorf("wazero: %v", err)
			}
		})
	}
}

// TestActiveSegmentsAreEmpty has what the specification says of a data segment
// that was copied when the module was instantiated: memory.init finds it empty.
// wazero keeps it full, so generated modules cannot show it.
func TestActiveSegmentsAreEmpty(t *testing.T) {
	for _, tt := range []struct {
		rewritten bool
		length    byte
		want      string
	}{
		{true, 0, "ok"},
		{true, 4, "out of bounds memory access"},
		{false, 4, "ok"},
	} {
		init := []byte{0x41, 0, 0x41, 0, 0x41, tt.length, 0xfc, 8, 0, 0}
		var m wasmtest.Module
		m.Memory(1).Data(8, []byte("data")).DataCount()
		m.Export("f", m.Func(wasmtest.Sig("", ""), init))
		g, err := newTestbed(t, tt.rewritten).instantiate("", m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.call("f"); kindOf(err) != tt.want {
			t.Errorf("rewritten %v, %d bytes: got %v, want %s", tt.rewritten, tt.length, err, tt.want)
		}
	}
}
