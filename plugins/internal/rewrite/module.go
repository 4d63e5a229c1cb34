package rewrite

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// The sections by number.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
)

// sectionOrder is the place of each section in a binary.
var sectionOrder = [...]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secTag: 6, secGlobal: 7,
	secExport: 8, secStart: 9, secElement: 10, secDataCount: 11, secCode: 12, secData: 13,
}

const headerLen = 8

// funcType is the type of a function or block; the bytes alias the binary.
type funcType struct{ params, results []byte }

type tableType struct {
	elem   byte
	limits limits
}

type globalType struct {
	typ     byte
	mutable bool
}

type limits struct {
	min, max uint32
	hasMax   bool
}

type export struct {
	name  string
	kind  byte
	index uint32
}

type segment struct {
	mode   dataMode
	offset uint32
	raw    []byte // the whole segment as it was
	bytes  []byte
}

type dataMode byte

const (
	dataConst   dataMode = iota // active, the offset is a constant
	dataActive                  // active, the offset is not known before instantiation
	dataPassive                 // for memory.init
)

// module is a decoded and validated module: its index spaces, imports first,
// and the sections of the rewritten one as far as they can be written while
// reading.
type module struct {
	types   []funcType
	funcs   []uint32 // type indexes
	tables  []tableType
	mems    []limits
	globals []globalType
	exports []export
	elems   []byte // types of the segments
	data    []segment
	bodies  []body

	importedFuncs, importedTables, importedMems, importedGlobals int

	start     int64 // -1: none
	dataCount int64 // -1: no section
	declared  []bool
	funcNames []funcName
	modName   []byte

	raw       [secTag + 1][]byte // entries of sections that are kept, without their count
	counts    [secTag + 1]uint32
	marks     []mark
	moves     uint64
	usesData  bool // memory.init or data.drop
	usesBulk  bool // memory.copy or memory.fill
	unrestore reasons
}

// decode reads and validates the whole binary.
func (m *module) decode(wasm []byte) error {
	if err := wasmbin.CheckHeader(wasm); err != nil {
		return err
	}
	m.start, m.dataCount = -1, -1
	r := wasmbin.NewReader(wasm[headerLen:], headerLen)
	last := 0
	for r.Len() > 0 {
		at := r.Offset()
		id := r.Byte()
		size := r.U32()
		bodyAt := r.Offset()
		body := r.Bytes(size)
		if err := r.Err(); err != nil {
			return fmt.Errorf("section %d at byte %d: %w", id, at, err)
		}
		s := wasmbin.NewReader(body, bodyAt)
		if id == secCustom {
			if err := m.custom(s); err != nil {
				return err
			}
			continue
		}
		if int(id) >= len(sectionOrder) {
			return fmt.Errorf("%w: malformed section id %d at byte %d", ErrMalformed, id, at)
		}
		if sectionOrder[id] <= last {
			return fmt.Errorf("%w: unexpected section %d at byte %d: out of order or there twice", ErrMalformed, id, at)
		}
		last = sectionOrder[id]
		if err := m.section(id, s); err != nil {
			return err
		}
		if s.Len() > 0 {
			return fmt.Errorf("%w: section size mismatch: bytes left over at byte %d", ErrMalformed, s.Offset())
		}
	}
	return m.finish(len(wasm))
}

func (m *module) section(id byte, r *wasmbin.Reader) error {
	do := [...]func(*wasmbin.Reader) error{
		secType: m.readTypes, secImport: m.readImports, secFunction: m.readFunctions,
		secTable: m.readTables, secMemory: m.readMemories, secGlobal: m.readGlobals,
		secExport: m.readExports, secStart: m.readStart, secElement: m.readElements,
		secCode: m.readCode, secData: m.readData, secDataCount: m.readDataCount, secTag: refuseTags,
	}[id]
	if err := do(r); err != nil {
		return err
	}
	return r.Err()
}

func refuseTags(r *wasmbin.Reader) error {
	return fmt.Errorf("%w: exceptions (a tag section) at byte %d", ErrUnsupported, r.Offset())
}

// finish checks what can be known at the end only.
func (m *module) finish(size int) error {
	if want := len(m.funcs) - m.importedFuncs; want != len(m.bodies) {
		return fmt.Errorf("%w: function and code section have inconsistent lengths: %d and %d, at byte %d", ErrMalformed, want, len(m.bodies), size)
	}
	if m.dataCount >= 0 && m.dataCount != int64(len(m.data)) {
		return fmt.Errorf("%w: data count and data section have inconsistent lengths: %d and %d, at byte %d", ErrMalformed, m.dataCount, len(m.data), size)
	}
	return nil
}

// custom checks the name of a custom section and keeps what the name section
// says.
func (m *module) custom(r *wasmbin.Reader) error {
	name := r.Name()
	if err := r.Err(); err != nil {
		return err
	}
	if name == "name" {
		return m.readNames(r)
	}
	return nil
}

// imports are added behind the guest's own, so functions with code move up by
// one.
func (m *module) newFunc(index uint32) uint32 {
	if int(index) < m.importedFuncs {
		return index
	}
	return index + 1
}

// yieldFunc is the index of the added import.
func (m *module) yieldFunc() uint32 { return uint32(m.importedFuncs) }

// reasons are the different reasons why a module is not restorable, in the
// order of their appearance.
type reasons []string

func (r *reasons) add(s string) {
	if len(*r) >= maxReasons {
		return
	}
	for _, have := range *r {
		if have == s {
			return
		}
	}
	*r = append(*r, s)
}

func u32(out []byte, v uint32) []byte { return binary.AppendUvarint(out, uint64(v)) }

// s64 appends a signed LEB128 number.
func s64(out []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(out, c)
		}
		out = append(out, c|0x80)
	}
}

func str(out []byte, s string) []byte { return append(u32(out, uint32(len(s))), s...) }

// same says whether two lists of types are equal.
func same(a, b []byte) bool { return bytes.Equal(a, b) }
