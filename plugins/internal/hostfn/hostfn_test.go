package hostfn_test

import (
	"context"
	"errors"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

type kv func(ctx context.Context, key string) ([]byte, bool, error)

func (f kv) Get(ctx context.Context, key string) ([]byte, bool, error) { return f(ctx, key) }

func session(f kv) *hostfn.Session {
	granted := map[string]bool{abi.OpKVGet: true, abi.OpKVPut: true}
	return hostfn.New(capability.Env{KV: f, Granted: granted}, 1000)
}

// request is a frame about the key "k".
func request(body []byte) []byte {
	return abi.EncodeFrame([]byte(`{"key":"k"}`), body)
}

// head returns the JSON head of the reply that v stands for.
func head(t *testing.T, s *hostfn.Session, v int64) string {
	t.Helper()
	handle, length, err := abi.UnpackReply(v)
	if err != nil {
		return err.Error()
	}
	frame, ok := s.Reply(handle)
	if !ok || len(frame) != int(length) {
		t.Fatalf("reply %d has %d bytes, want %d", handle, len(frame), length)
	}
	h, _, err := abi.DecodeFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestPutCaps(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		puts int // that fit
	}{
		{"count", 1, abi.MaxKVPuts},
		{"volume", abi.MaxKVValue, (abi.MaxKVPutBytes - 1) / (abi.MaxKVValue + 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := session(nil)
			for i := range tt.puts + 1 {
				v, err := s.Call(t.Context(), abi.OpKVPut, request(make([]byte, tt.size)))
				if err != nil {
					t.Fatal(err)
				}
				want := `{"status":204}`
				if i == tt.puts {
					want = `{"status":507,"error":"too_many_writes"}`
				}
				if got := head(t, s, v); got != want {
					t.Fatalf("put %d = %s, want %s", i, got, want)
				}
			}
			if len(s.Puts()) != tt.puts {
				t.Errorf("kept %d puts, want %d", len(s.Puts()), tt.puts)
			}
		})
	}
}

func TestPutKeepsNoGuestMemory(t *testing.T) {
	s := session(nil)
	req := request([]byte("value"))
	if _, err := s.Call(t.Context(), abi.OpKVPut, req); err != nil {
		t.Fatal(err)
	}
	clear(req)
	if got := s.Puts()[0]; got.Key != "k" || string(got.Value) != "value" {
		t.Errorf("put = %q %q", got.Key, got.Value)
	}
}

func TestPortErrors(t *testing.T) {
	broken := errors.New("broken")
	s := session(func(context.Context, string) ([]byte, bool, error) { return nil, false, broken })
	_, err := s.Call(t.Context(), abi.OpKVGet, request(nil))
	var port *hostfn.PortError
	if !errors.As(err, &port) || !errors.Is(err, broken) || port.Op != abi.OpKVGet {
		t.Errorf("error = %v, want a PortError of %s", err, abi.OpKVGet)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s = session(func(ctx context.Context, _ string) ([]byte, bool, error) { cancel(); return nil, false, ctx.Err() })
	if _, err := s.Call(ctx, abi.OpKVGet, request(nil)); !errors.Is(err, context.Canceled) || errors.As(err, &port) {
		t.Errorf("error of a canceled get = %v, want canceled", err)
	}
}

// TestHeldReplies: replies that are not closed are bounded.
func TestHeldReplies(t *testing.T) {
	large := make([]byte, 1<<20)
	s := session(func(context.Context, string) ([]byte, bool, error) { return large, true, nil })
	full := false
	for range 20 {
		v, err := s.Call(t.Context(), abi.OpKVGet, request(nil))
		if err != nil {
			t.Fatal(err)
		}
		full = v == abi.PackErrno(abi.EDQUOT)
	}
	if !full {
		t.Error("20 MiB of replies were held")
	}
	s.Close(1)
	if v, _ := s.Call(t.Context(), abi.OpKVGet, request(nil)); v < 0 {
		t.Errorf("after a close = %d, want a reply", v)
	}
}
