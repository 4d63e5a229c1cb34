package abi_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/casemate/casemate/sdk/abi"
)

type named struct {
	Name   string `json:"name"`
	Number int32  `json:"number"`
	Packed string `json:"packed"`
}

type bytesVector struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Head  string `json:"head"`
	Body  string `json:"body"`
	Frame string `json:"frame"`
	In    string `json:"in"`
	Out   string `json:"out"`
}

type vectors struct {
	Frames    []bytesVector `json:"frames"`
	BadFrames []bytesVector `json:"bad_frames"`
	Replies   []struct {
		Handle uint32 `json:"handle"`
		Length uint32 `json:"length"`
		Packed string `json:"packed"`
	} `json:"replies"`
	Errnos       []named       `json:"errnos"`
	FailCodes    []named       `json:"fail_codes"`
	Levels       []named       `json:"levels"`
	Budgets      []named       `json:"budgets"`
	Classes      []string      `json:"classes"`
	Envelopes    []bytesVector `json:"envelopes"`
	Ops          []opVector    `json:"ops"`
	OpErrors     []opError     `json:"op_errors"`
	Canonical    []bytesVector `json:"canonical"`
	NotCanonical []bytesVector `json:"not_canonical"`
}

func load(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFrameVectors(t *testing.T) {
	v := load(t)
	if len(v.Frames) == 0 || len(v.BadFrames) == 0 {
		t.Fatal("no vectors")
	}
	for _, f := range v.Frames {
		head, body, frame := unhex(t, f.Head), unhex(t, f.Body), unhex(t, f.Frame)
		if got := abi.EncodeFrame(head, body); !bytes.Equal(got, frame) {
			t.Errorf("%s: encoded %x, want %x", f.Name, got, frame)
		}
		gotHead, gotBody, err := abi.DecodeFrame(frame)
		if err != nil || !bytes.Equal(gotHead, head) || !bytes.Equal(gotBody, body) {
			t.Errorf("%s: decoded %q, %q, %v; want %q, %q", f.Name, gotHead, gotBody, err, head, body)
		}
	}
	for _, f := range v.BadFrames {
		if head, body, err := abi.DecodeFrame(unhex(t, f.Frame)); !errors.Is(err, abi.ErrFrame) || head != nil || body != nil {
			t.Errorf("%s: got %q, %q, %v; want ErrFrame", f.Name, head, body, err)
		}
	}
}

func TestReplyVectors(t *testing.T) {
	v := load(t)
	for _, r := range v.Replies {
		want, err := strconv.ParseInt(r.Packed, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := abi.PackReply(r.Handle, r.Length); got != want {
			t.Errorf("pack %d, %d: got %d, want %d", r.Handle, r.Length, got, want)
		}
		handle, length, err := abi.UnpackReply(want)
		if err != nil || handle != r.Handle || length != r.Length {
			t.Errorf("unpack %d: got %d, %d, %v; want %d, %d", want, handle, length, err, r.Handle, r.Length)
		}
	}
	if got, want := abi.PackReply(1<<31, 0), int64(-abi.EOVERFLOW); got != want {
		t.Errorf("a handle of 2^31: got %d, want %d", got, want)
	}
}

func TestErrnoVectors(t *testing.T) {
	names := map[string]abi.Errno{
		"E2BIG": abi.E2BIG, "EACCES": abi.EACCES, "EAGAIN": abi.EAGAIN, "EBADF": abi.EBADF,
		"ECANCELED": abi.ECANCELED, "EDQUOT": abi.EDQUOT, "EINVAL": abi.EINVAL, "EIO": abi.EIO,
		"ENOENT": abi.ENOENT, "ENOSYS": abi.ENOSYS, "EOVERFLOW": abi.EOVERFLOW, "EPERM": abi.EPERM,
	}
	v := load(t)
	if len(v.Errnos) != len(names) {
		t.Errorf("%d vectors for %d errnos", len(v.Errnos), len(names))
	}
	for _, e := range v.Errnos {
		errno, ok := names[e.Name]
		if !ok || int32(errno) != e.Number {
			t.Errorf("%s is %d, want %d", e.Name, errno, e.Number)
		}
		packed := abi.PackErrno(errno)
		if got := strconv.FormatInt(packed, 10); got != e.Packed {
			t.Errorf("%s packed: got %s, want %s", e.Name, got, e.Packed)
		}
		if _, _, err := abi.UnpackReply(packed); !errors.Is(err, errno) || err.Error() == "" {
			t.Errorf("%s unpacked: got %v", e.Name, err)
		}
	}
}

func TestCodeVectors(t *testing.T) {
	v := load(t)
	for _, c := range v.FailCodes {
		if got := abi.FailCode(c.Number).String(); got != c.Name {
			t.Errorf("fail code %d: got %s, want %s", c.Number, got, c.Name)
		}
	}
	check := func(what string, got []named, want ...int32) {
		if len(got) != len(want) {
			t.Errorf("%s: %d vectors, want %d", what, len(got), len(want))
			return
		}
		for i, n := range got {
			if n.Number != want[i] {
				t.Errorf("%s %s is %d, want %d", what, n.Name, n.Number, want[i])
			}
		}
	}
	check("level", v.Levels, int32(abi.LevelTrace), int32(abi.LevelDebug), int32(abi.LevelInfo), int32(abi.LevelWarn), int32(abi.LevelError))
	check("budget", v.Budgets, int32(abi.BudgetMillis), int32(abi.BudgetFuel), int32(abi.BudgetOutput))
}

// envelopes holds an empty value of each type that the vectors name.
func envelopes() map[string]func() any {
	return map[string]func() any{
		"tool_call":      func() any { return new(abi.ToolCall) },
		"tool_result":    func() any { return new(abi.ToolResult) },
		"route_question": func() any { return new(abi.RouteQuestion) },
		"route_answer":   func() any { return new(abi.RouteAnswer) },
		"retry_question": func() any { return new(abi.RetryQuestion) },
		"retry_answer":   func() any { return new(abi.RetryAnswer) },
		"descriptor":     func() any { return new(abi.Descriptor) },
		"warm_up":        func() any { return new(abi.WarmUp) },
	}
}

func TestEnvelopeVectors(t *testing.T) {
	types, seen := envelopes(), map[string]bool{}
	for _, e := range load(t).Envelopes {
		blank, ok := types[e.Type]
		if !ok {
			t.Errorf("%s: unknown type %s", e.Name, e.Type)
			continue
		}
		seen[e.Type] = true
		value := blank()
		if err := json.Unmarshal(unhex(t, e.In), value); err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		got, err := abi.CanonicalJSON(text)
		if want := unhex(t, e.Out); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %s, %v; want %s", e.Name, got, err, want)
		}
	}
	for name := range types {
		if !seen[name] {
			t.Errorf("no vector of type %s", name)
		}
	}
}

func TestCanonicalVectors(t *testing.T) {
	v := load(t)
	for _, c := range v.Canonical {
		want := unhex(t, c.Out)
		got, err := abi.CanonicalJSON(unhex(t, c.In))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %s, %v; want %s", c.Name, got, err, want)
		}
		if again, err := abi.CanonicalJSON(got); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: again gives %s, %v; want %s", c.Name, again, err, got)
		}
	}
	for _, c := range v.NotCanonical {
		if got, err := abi.CanonicalJSON(unhex(t, c.In)); err == nil {
			t.Errorf("%s: got %s, want an error", c.Name, got)
		}
	}
}
