package hostfn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// all grants every op.
func all() map[string]bool {
	return map[string]bool{
		abi.OpKVGet: true, abi.OpKVPut: true, abi.OpKVDelete: true, abi.OpKVList: true,
		abi.OpHTTPFetch: true, abi.OpToolCall: true, abi.OpTimeNow: true, abi.OpRand: true,
	}
}

// newSession returns a session with every grant, which ends with the test.
func newSession(t *testing.T, env capability.Env) *hostfn.Session {
	t.Helper()
	env.Granted = all()
	s := hostfn.New(env, 1000)
	t.Cleanup(s.End)
	return s
}

// ask makes a call and returns the reply's head and body. What gives no reply
// is its errno's text, or a failed test.
func ask(t *testing.T, s *hostfn.Session, op, head, body string) (string, string) {
	t.Helper()
	v, err := s.Call(t.Context(), op, abi.EncodeFrame([]byte(head), []byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	handle, length, err := abi.UnpackReply(v)
	if err != nil {
		return err.Error(), ""
	}
	frame, ok := s.Reply(handle)
	if !ok || len(frame) != int(length) {
		t.Fatalf("reply %d has %d bytes, want %d", handle, len(frame), length)
	}
	h, b, err := abi.DecodeFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	return string(h), string(b)
}

// wantHead checks the head of a reply.
func wantHead(t *testing.T, s *hostfn.Session, op, head, body, want string) {
	t.Helper()
	if got, _ := ask(t, s, op, head, body); got != want {
		t.Errorf("%s %s: got %s, want %s", op, head, got, want)
	}
}

func TestGrants(t *testing.T) {
	var audited []string
	audit := func(op, reason string) { audited = append(audited, op+" "+reason) }
	for _, op := range slices.Sorted(func(yield func(string) bool) {
		for op := range all() {
			if !yield(op) {
				return
			}
		}
	}) {
		audited = nil
		s := hostfn.New(capability.Env{Audit: audit}, 1)
		wantHead(t, s, op, `{}`, "", abi.EPERM.Error())
		if want := []string{op + " not_granted"}; !slices.Equal(audited, want) {
			t.Errorf("%s: audited %q, want %q", op, audited, want)
		}
		wantHead(t, s, op, `{}`, "", abi.EDQUOT.Error()) // the only call is spent
	}
	audited = nil
	s := newSession(t, capability.Env{Audit: audit})
	for _, op := range []string{"", "kv.get/2", "kv.get", "KV.GET/1", "model.call/1", "kv.get/1\x00"} {
		wantHead(t, s, op, `{}`, "", abi.ENOSYS.Error())
	}
	if audited != nil {
		t.Errorf("unknown ops, which are text of the guest, were audited: %q", audited)
	}
	if s.Calls() != 6 {
		t.Errorf("counted %d calls, want 6", s.Calls())
	}
}

func TestFrames(t *testing.T) {
	s := newSession(t, capability.Env{})
	for name, tt := range map[string]struct {
		frame []byte
		want  abi.Errno
	}{
		"empty":               {nil, abi.EINVAL},
		"long head":           {[]byte{9, 0, 0, 0, '{', '}'}, abi.EINVAL},
		"over a cap":          {make([]byte, 1<<20+1), abi.E2BIG},
		"at that cap":         {make([]byte, 1<<20), 0},
		"a head over its cap": {abi.EncodeFrame(make([]byte, 256<<10+1), nil), abi.E2BIG},
		"a head at that cap":  {abi.EncodeFrame(make([]byte, 256<<10), nil), 0},
	} {
		v, err := s.Call(t.Context(), abi.OpTimeNow, tt.frame)
		if err != nil || tt.want != 0 && v != abi.PackErrno(tt.want) || tt.want == 0 && v < 0 {
			t.Errorf("%s: got %d, %v; want %v", name, v, err, tt.want)
		}
	}
}

func TestPortErrors(t *testing.T) {
	broken := errors.New("broken")
	for op, head := range map[string]string{
		abi.OpKVGet: `{"key":"k"}`, abi.OpKVPut: `{"key":"k"}`, abi.OpKVList: `{}`,
		abi.OpHTTPFetch: `{"url":"https://a.test"}`, abi.OpToolCall: `{"tool":"t"}`,
	} {
		for name, env := range map[string]capability.Env{
			"no port": {},
			"a port that fails": {
				KV: &kv{err: broken}, HTTP: &web{err: broken},
				Tools: tools(func(int, string, string) (capability.ToolReply, error) { return capability.ToolReply{}, broken }),
			},
			"an end of its own": {KV: &kv{err: context.Canceled}, HTTP: &web{err: context.Canceled}, Tools: tools(func(int, string, string) (capability.ToolReply, error) {
				return capability.ToolReply{}, context.Canceled
			})},
		} {
			s := newSession(t, env)
			_, err := s.Call(t.Context(), op, abi.EncodeFrame([]byte(head), nil))
			port, ok := errors.AsType[*hostfn.PortError](err)
			if !ok || port.Op != op || name == "a port that fails" && !errors.Is(err, broken) {
				t.Errorf("%s, %s: got %v, want a PortError", op, name, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(t, capability.Env{KV: &kv{err: broken}})
	cancel()
	if _, err := s.Call(ctx, abi.OpKVGet, abi.EncodeFrame([]byte(`{"key":"k"}`), nil)); !errors.Is(err, context.Canceled) || errors.Is(err, broken) {
		t.Errorf("error of a canceled get = %v, want canceled", err)
	}
}

// TestHeldReplies: replies that are not closed are bounded, and an op that is
// refused for it was not carried out.
func TestHeldReplies(t *testing.T) {
	effects := 0
	w := &web{body: strings.Repeat("x", 1<<20)}
	s := newSession(t, capability.Env{HTTP: w, KV: &kv{}, Effect: func(context.Context) error { effects++; return nil }})
	for i := range 16 {
		if got, _ := ask(t, s, abi.OpHTTPFetch, `{"method":"POST","url":"https://a.test"}`, ""); got == abi.EDQUOT.Error() {
			t.Fatalf("reply %d of 1 MiB: %s", i, got)
		}
	}
	wantHead(t, s, abi.OpHTTPFetch, `{"method":"POST","url":"https://a.test"}`, "", abi.EDQUOT.Error())
	wantHead(t, s, abi.OpHTTPFetch, `{"url":"https://a.test","stream":true}`, "", abi.EDQUOT.Error())
	wantHead(t, s, abi.OpKVPut, `{"key":"k"}`, "v", abi.EDQUOT.Error())
	if len(w.got) != 16 || effects != 16 || s.Puts() != nil {
		t.Errorf("%d requests were sent after %d effects, and %d puts made; want 16, 16 and none", len(w.got), effects, len(s.Puts()))
	}
	s.Close(1)
	wantHead(t, s, abi.OpKVPut, `{"key":"k"}`, "v", stored)
}

// TestSpend: what an op carries is paid for, and a call that cannot pay ends.
func TestSpend(t *testing.T) {
	s := newSession(t, capability.Env{KV: &kv{state: map[string]string{"k": strings.Repeat("v", 16_000)}}, HTTP: &web{body: strings.Repeat("x", 160_000)}, Tools: tools(func(int, string, string) (capability.ToolReply, error) {
		return capability.ToolReply{}, nil
	})})
	var spent uint64
	s.Spend = func(fuel uint64) { spent += fuel }
	check := func(what string, least uint64) {
		t.Helper()
		if spent < least || spent > least+least/10+100 {
			t.Errorf("%s: spent %d, want about %d", what, spent, least)
		}
		spent = 0
	}
	ask(t, s, abi.OpKVPut, `{"key":"a"}`, strings.Repeat("v", 32_000))
	check("a put of 32,000 bytes", 2000)
	ask(t, s, abi.OpKVGet, `{"key":"k"}`, "")
	check("a get of 16,000 bytes", 1000)
	ask(t, s, abi.OpHTTPFetch, `{"url":"https://a.test"}`, "")
	check("a fetch of 160,000 bytes, received and given", 20_000)
	ask(t, s, abi.OpRand, `{"n":65536}`, "")
	check("65,536 random bytes, made and given", 8192)
	ask(t, s, abi.OpKVGet, `{"key":"a"`+strings.Repeat(" ", 10_000)+`}`, "")
	check("10,000 bytes of head, and a value of 32,000", 10_000+10_000/16+2000)
	ask(t, s, abi.OpToolCall, `{"tool":"t"}`, `{"a":"`+strings.Repeat("x", 100_000)+`"}`)
	check("100,000 bytes of arguments", 100_000+100_000/16)
}

// TestSpendEndsCalls: where fuel ends, what an op had opened is closed.
func TestSpendEndsCalls(t *testing.T) {
	for _, head := range []string{`{"url":"u"}`, `{"url":"u","stream":true}`} {
		body := &text{Reader: strings.NewReader("left")}
		s := newSession(t, capability.Env{HTTP: &web{raw: body}})
		debits := 0
		s.Spend = func(uint64) {
			if debits++; debits == 3 {
				panic("out of fuel")
			}
		}
		ended := func() (ended bool) {
			defer func() { ended = recover() != nil }()
			ask(t, s, abi.OpHTTPFetch, head, "")
			return false
		}()
		s.End()
		if !ended || !body.closed {
			t.Errorf("%s: ended %v, body closed %v", head, ended, body.closed)
		}
	}
}

func TestClockAndChance(t *testing.T) {
	s := newSession(t, capability.Env{})
	head, _ := ask(t, s, abi.OpTimeNow, "", "")
	var now abi.TimeReply
	if err := json.Unmarshal([]byte(head), &now); err != nil || now.Status != 200 || now.NowMS < 1_700_000_000_000 {
		t.Errorf("time: got %s, %v", head, err)
	}
	_, a := ask(t, s, abi.OpRand, `{"n":16}`, "")
	_, b := ask(t, s, abi.OpRand, `{"n":16}`, "")
	if len(a) != 16 || len(b) != 16 || a == b {
		t.Errorf("rand: got %x and %x", a, b)
	}
	for _, head := range []string{`{}`, `{"n":0}`, `{"n":-1}`, `{"n":65537}`, `[]`, ``} {
		wantHead(t, s, abi.OpRand, head, "", `{"status":400,"error":"invalid_request"}`)
	}
}

// tools is a capability.Tools.
type tools func(n int, tool, arguments string) (capability.ToolReply, error)

// Call implements capability.Tools.
func (f tools) Call(_ context.Context, n int, tool string, arguments []byte) (capability.ToolReply, error) {
	return f(n, tool, string(arguments))
}

func TestToolCall(t *testing.T) {
	var calls, audited []string
	env := capability.Env{
		Audit:  func(op, reason string) { audited = append(audited, op+" "+reason) },
		Effect: func(context.Context) error { t.Error("a call of a tool is the port's own business"); return nil },
		Tools: tools(func(n int, tool, arguments string) (capability.ToolReply, error) {
			calls = append(calls, fmt.Sprint(n, " ", tool, " ", arguments))
			switch tool {
			case "fails":
				return capability.ToolReply{Output: []byte("why"), Code: "not_found"}, nil
			case "soft":
				return capability.ToolReply{Output: []byte("why"), IsError: true}, nil
			case "none":
				return capability.ToolReply{}, fmt.Errorf("loop: %w", capability.ErrNoTool)
			case "cycle":
				return capability.ToolReply{}, fmt.Errorf("loop: %w", capability.ErrRefused)
			case "spent":
				return capability.ToolReply{}, fmt.Errorf("loop: %w", capability.ErrExhausted)
			}
			return capability.ToolReply{Output: []byte("42")}, nil
		}),
	}
	s := newSession(t, env)
	for _, tt := range []struct {
		head, body, want, reply string
	}{
		{`{"tool":"calc"}`, `{"a":1}`, `{"status":200}`, "42"},
		{`{"tool":"pure"}`, ``, `{"status":200}`, "42"},
		{`{"tool":"fails"}`, `{}`, `{"status":422,"error":"not_found"}`, "why"},
		{`{"tool":"soft"}`, `{}`, `{"status":200,"is_error":true}`, "why"},
		{`{"tool":"none"}`, `{}`, `{"status":404,"error":"no_such_tool"}`, ""},
		{`{"tool":"cycle"}`, `{}`, abi.EPERM.Error(), ""},
		{`{"tool":"spent"}`, `{}`, abi.EDQUOT.Error(), ""},
		{`{"tool":""}`, `{}`, `{"status":400,"error":"invalid_request"}`, ""},
		{`{"tool":"calc"}`, `[]`, `{"status":400,"error":"invalid_request"}`, ""},
		{`{"tool":"calc"}`, `null`, `{"status":400,"error":"invalid_request"}`, ""},
		{`{"tool":"calc"}`, `{"a"`, `{"status":400,"error":"invalid_request"}`, ""},
		{`{"tool":"` + strings.Repeat("x", 130) + `"}`, `{}`, `{"status":400,"error":"invalid_request"}`, ""},
		{`{"tool":"pure"}`, `{}`, `{"status":200}`, "42"},
	} {
		if got, reply := ask(t, s, abi.OpToolCall, tt.head, tt.body); got != tt.want || reply != tt.reply {
			t.Errorf("%s: got %s, %q; want %s, %q", tt.head, got, reply, tt.want, tt.reply)
		}
	}
	if got, want := strings.Join(calls, "|"), `0 calc {"a":1}|1 pure {}|2 fails {}|3 soft {}|4 none {}|5 cycle {}|6 spent {}|12 pure {}`; got != want {
		t.Errorf("calls: got %s, want %s", got, want)
	}
	if want := []string{"tool.call/1 tool_refused"}; !slices.Equal(audited, want) {
		t.Errorf("audited %q, want %q", audited, want)
	}
}
