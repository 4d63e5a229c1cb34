package tool_test

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
	"github.com/casemate/casemate/sdk/tool"
	"github.com/casemate/casemate/sdk/tool/tooltest"
)

// body is what tool run does, set by each test.
var body func(ctx tool.Context) (any, error)

// in runs f in a call of tool run.
func in(t *testing.T, c tooltest.Call, f func(ctx tool.Context) (any, error)) tooltest.Result {
	t.Helper()
	body, c.Tool = f, "run"
	r, err := tooltest.Run(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantError checks what an op gave as error.
func wantError(t *testing.T, err error, code abi.FailCode, reason, text string) {
	t.Helper()
	e, ok := errors.AsType[*tool.Error](err)
	if !ok || e.Code != code || e.Reason != reason || err.Error() != text {
		t.Errorf("got %v (%+v), want %v, reason %q: %s", err, e, code, reason, text)
	}
}

func TestStore(t *testing.T) {
	before := map[string][]byte{"a/1": []byte("one"), "a/2": []byte("two"), "b": nil}
	r := in(t, tooltest.Call{KV: before}, func(ctx tool.Context) (any, error) {
		kv := ctx.KV()
		e, ok, err := kv.Entry("a/1")
		if err != nil || !ok || string(e.Value) != "one" || e.ETag == "" {
			t.Errorf("entry: got %q, %q, %v, %v", e.Value, e.ETag, ok, err)
		}
		did := func(what string, want bool) func(bool, error) {
			return func(done bool, err error) {
				t.Helper()
				if err != nil || done != want {
					t.Errorf("%s: got %v, %v; want %v", what, done, err, want)
				}
			}
		}
		did("a match", true)(kv.PutIf("a/1", []byte("uno"), tool.Write{IfMatch: e.ETag, TTL: time.Hour}))
		did("no match", false)(kv.PutIf("a/1", []byte("eins"), tool.Write{IfMatch: e.ETag}))
		did("absent", true)(kv.PutIf("a/3", nil, tool.Write{IfAbsent: true}))
		did("not absent", false)(kv.PutIf("a/3", nil, tool.Write{IfAbsent: true}))
		did("delete without a match", false)(kv.DeleteIf("b", e.ETag))
		if err := kv.Delete("a/2"); err != nil {
			t.Error(err)
		}
		keys, more, err := kv.List("a/", "", 1)
		if err != nil || !more || !reflect.DeepEqual(keys, []string{"a/1"}) {
			t.Errorf("list: got %q, %v, %v", keys, more, err)
		}
		keys, more, err = kv.List("a/", "a/1", 0)
		if err != nil || more || !reflect.DeepEqual(keys, []string{"a/3"}) {
			t.Errorf("list: got %q, %v, %v", keys, more, err)
		}
		_, _, err = kv.List("", "", -1)
		wantError(t, err, abi.FailInternal, abi.ErrorRequest, `kv.list/1 "": invalid_request`)
		_, _, err = kv.List("", "a\x00", 0)
		wantError(t, err, abi.FailInternal, abi.ErrorKey, `kv.list/1 "": invalid_key`)
		_, err = kv.PutIf("c", nil, tool.Write{TTL: -1})
		wantError(t, err, abi.FailInternal, abi.ErrorTTL, `kv.put/1 "c": invalid_ttl`)
		wantError(t, kv.Put("c", make([]byte, abi.MaxKVValue+1)), abi.FailPermanent, abi.ErrorValue, `kv.put/1 "c": value_too_large`)
		if err := kv.Put("\xff", nil); err == nil {
			t.Error("a key that is not UTF-8 was written")
		}
		return nil, nil
	})
	if want := map[string][]byte{"a/1": []byte("uno"), "a/3": {}, "b": nil}; !reflect.DeepEqual(r.KV, want) {
		t.Errorf("state: got %q, want %q", r.KV, want)
	}
}

// TestShortTimes: less than a millisecond is not for ever.
func TestShortTimes(t *testing.T) {
	in(t, tooltest.Call{HTTP: func(r tool.Request) (tool.Response, error) {
		if r.Timeout != time.Millisecond {
			t.Errorf("timeout %v, want 1ms", r.Timeout)
		}
		return tool.Response{}, nil
	}}, func(ctx tool.Context) (any, error) {
		_, err := ctx.HTTP(tool.Request{URL: "https://a.test", Timeout: time.Microsecond})
		return nil, err
	})
}

func TestHTTP(t *testing.T) {
	var got tool.Request
	server := func(r tool.Request) (tool.Response, error) {
		got = r
		return tool.Response{Status: 418, Header: tool.Header{{"content-type", "text/plain"}}, Body: []byte("short and stout")}, nil
	}
	r := in(t, tooltest.Call{HTTP: server}, func(ctx tool.Context) (any, error) {
		want := tool.Request{
			Method: "POST", URL: "https://a.test/x", Header: tool.Header{{"authorization", "Bearer {{secret:KEY}}"}},
			Body: []byte("q"), Timeout: time.Second, MaxBytes: 100,
		}
		resp, err := ctx.HTTP(want)
		if err != nil || resp.Status != 418 || resp.Header.Get("Content-Type") != "text/plain" || resp.Header.Get("x") != "" ||
			string(resp.Body) != "short and stout" || resp.Stream != nil {
			t.Errorf("got %+v, %v", resp, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("asked %+v, want %+v", got, want)
		}
		resp, err = ctx.HTTP(tool.Request{URL: "https://a.test", Stream: true})
		if err != nil || resp.Body != nil {
			t.Fatalf("got %+v, %v", resp, err)
		}
		part := make([]byte, 5)
		if n, err := resp.Stream.Read(part); n != 5 || err != nil || string(part) != "short" {
			t.Errorf("read %q, %v", part[:n], err)
		}
		if n, err := resp.Stream.Read(nil); n != 0 || err != nil {
			t.Errorf("an empty read: %d, %v", n, err)
		}
		if rest, err := io.ReadAll(resp.Stream); err != nil || string(rest) != " and stout" {
			t.Errorf("read %q, %v", rest, err)
		}
		if err := errors.Join(resp.Stream.Close(), resp.Stream.Close()); err != nil {
			t.Error(err)
		}
		if _, err := resp.Stream.Read(part); !errors.Is(err, abi.EBADF) {
			t.Errorf("after close: %v", err)
		}
		_, err = ctx.HTTP(tool.Request{URL: "https://a.test", Stream: true}) // left open
		return nil, err
	})
	if r.Fail != nil || r.Streams != 1 {
		t.Errorf("got %+v, %d streams open; want one", r.Fail, r.Streams)
	}
}

func TestHTTPFails(t *testing.T) {
	for why, code := range map[string]abi.FailCode{
		abi.HTTPInvalidURL: abi.FailInvalidArgs, abi.HTTPInvalidHeader: abi.FailInternal, abi.HTTPInvalidMethod: abi.FailInternal,
		abi.HTTPRequestTooLarge: abi.FailPermanent, abi.HTTPDenied: abi.FailDenied, abi.HTTPSecretDenied: abi.FailDenied,
		abi.HTTPNetwork: abi.FailTransient, abi.HTTPTimeout: abi.FailTransient,
		abi.HTTPTooManyRedirects: abi.FailPermanent, abi.HTTPResponseTooLarge: abi.FailPermanent,
	} {
		in(t, tooltest.Call{HTTP: func(tool.Request) (tool.Response, error) { return tool.Response{}, tooltest.Refuse(why) }},
			func(ctx tool.Context) (any, error) {
				_, err := ctx.HTTP(tool.Request{URL: "https://a.test"})
				wantError(t, err, code, why, `http.fetch/1 "https://a.test": `+why)
				return nil, nil
			})
	}
	for name, c := range map[string]tooltest.Call{
		"no server": {}, "an error of the server's": {HTTP: func(tool.Request) (tool.Response, error) { return tool.Response{}, io.EOF }},
	} {
		in(t, c, func(ctx tool.Context) (any, error) {
			_, err := ctx.HTTP(tool.Request{URL: "u"})
			if e, ok := errors.AsType[*tool.Error](err); !ok || e.Reason != abi.HTTPNetwork {
				t.Errorf("%s: got %v", name, err)
			}
			return nil, nil
		})
	}
	r := in(t, tooltest.Call{Denied: []string{abi.OpHTTPFetch}}, func(ctx tool.Context) (any, error) {
		_, err := ctx.HTTP(tool.Request{URL: "u"})
		return nil, err
	})
	if r.Fail == nil || r.Fail.Code != abi.FailDenied || r.Fail.Text != `http.fetch/1 "u": not granted` {
		t.Errorf("not granted: got %+v", r.Fail)
	}
	in(t, tooltest.Call{HTTP: func(r tool.Request) (tool.Response, error) {
		t.Errorf("sent %s with %d bytes and %q", r.URL, len(r.Body), r.Header)
		return tool.Response{}, nil
	}}, func(ctx tool.Context) (any, error) {
		_, err := ctx.HTTP(tool.Request{Method: "POST", URL: "u", Body: make([]byte, 1<<20)})
		wantError(t, err, abi.FailPermanent, "", `http.fetch/1 "u": too big`)
		_, err = ctx.HTTP(tool.Request{URL: "u", Header: tool.Header{{"x", strings.Repeat("x", 256<<10)}}})
		wantError(t, err, abi.FailPermanent, "", `http.fetch/1 "u": too big`)
		_, err = ctx.HTTP(tool.Request{URL: "u", Header: tool.Header{{"x", "Gr\xfc\xdfe"}}})
		wantError(t, err, abi.FailInvalidArgs, "", `http.fetch/1 "u": not UTF-8`)
		return nil, nil
	})
	in(t, tooltest.Call{HTTP: func(tool.Request) (tool.Response, error) { return tool.Response{Body: make([]byte, 11)}, nil }},
		func(ctx tool.Context) (any, error) {
			_, err := ctx.HTTP(tool.Request{URL: "u", MaxBytes: 10})
			wantError(t, err, abi.FailPermanent, abi.HTTPResponseTooLarge, `http.fetch/1 "u": response_too_large`)
			return nil, nil
		})
}

func TestCallTool(t *testing.T) {
	var asked []string
	tools := func(name, arguments string) (tool.Answer, error) {
		asked = append(asked, name+arguments)
		switch name {
		case "calc":
			return tool.Answer{Text: "42"}, nil
		case "soft":
			return tool.Answer{Text: "so-so", IsError: true}, nil
		case "busy":
			return tool.Answer{}, tool.Transient(-1, "busy")
		}
		return tool.Answer{}, errors.New("broken")
	}
	in(t, tooltest.Call{Tools: tools}, func(ctx tool.Context) (any, error) {
		for name, want := range map[string]tool.Answer{"calc": {Text: "42"}, "soft": {Text: "so-so", IsError: true}} {
			if got, err := ctx.CallTool(name, map[string]string{"expression": "6*7"}); err != nil || got != want {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
		}
		_, err := ctx.CallTool("busy", nil)
		wantError(t, err, abi.FailTransient, "transient", "tool busy: transient: busy")
		_, err = ctx.CallTool("other", nil)
		wantError(t, err, abi.FailInternal, "internal", "tool other: internal: broken")
		if _, err := ctx.CallTool("calc", make(chan int)); err == nil {
			t.Error("arguments that JSON lacks were sent")
		}
		return nil, nil
	})
	if len(asked) != 4 || !strings.Contains(strings.Join(asked, " "), `calc{"expression":"6*7"}`) || asked[3] != "other{}" {
		t.Errorf("asked %q", asked)
	}
	in(t, tooltest.Call{}, func(ctx tool.Context) (any, error) {
		_, err := ctx.CallTool("calc", nil)
		wantError(t, err, abi.FailNotFound, abi.ErrorNoTool, `tool.call/1 "calc": no_such_tool`)
		return nil, nil
	})
}

func TestNow(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	in(t, tooltest.Call{Now: now}, func(ctx tool.Context) (any, error) {
		if got := ctx.Now(); !got.Equal(now) {
			t.Errorf("got %v, want %v", got, now)
		}
		return nil, nil
	})
}

// TestRehearsal: a warm-up that nobody asked for reads and writes, and does not
// reach the handler.
func TestRehearsal(t *testing.T) {
	text, err := guest.Process().Describe()
	if err != nil {
		t.Fatal(err)
	}
	var d abi.Descriptor
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	body = func(tool.Context) (any, error) { t.Error("the handler was called"); return nil, nil }
	var names []string
	for _, raw := range d.WarmUp {
		var w abi.WarmUp
		if err := json.Unmarshal(raw, &w); err != nil {
			t.Fatal(err)
		}
		names = append(names, w.Tool+string(w.Arguments))
		input, err := json.Marshal(abi.ToolCall{V: abi.Version, Tool: w.Tool, Arguments: w.Arguments, WarmUp: true})
		if err != nil {
			t.Fatal(err)
		}
		h := guest.Fake{In: input}
		if status := guest.Process().Enter(abi.ExportToolCall, &h); status != 0 || !strings.HasPrefix(string(h.Out), `{"v":1,"output":`) {
			t.Errorf("%s: status %d, output %s, failure %+v", raw, status, h.Out, h.Failed)
		}
	}
	want := `say{"loud":true,"what":"hello"} swap{"key":"text","value":"text"} fail{"how":"text"} see{} run{}`
	if got := strings.Join(names, " "); got != want {
		t.Errorf("warm-ups: got %s, want %s", got, want)
	}
}

// TestContent: parts are given where there is no output.
func TestContent(t *testing.T) {
	parts := []json.RawMessage{[]byte(`{"type":"text"}`)}
	for want, reply := range map[string]tool.Reply{
		`[{"type":"text"}]`: {Content: parts}, "shown": {Output: "shown", Content: parts}, "null": {},
	} {
		r := in(t, tooltest.Call{}, func(tool.Context) (any, error) { return reply, nil })
		if got := r.Text(); got != want || len(r.Content) != len(reply.Content) {
			t.Errorf("got %s with %d parts, want %s with %d", got, len(r.Content), want, len(reply.Content))
		}
	}
}

// TestEncoding: what is put together by hand is what encoding/json makes.
func TestEncoding(t *testing.T) {
	for _, r := range []tool.Reply{
		{Output: "<a> & \u2028"},
		{Output: nil},
		{Output: map[string]any{"b": 1, "a": []int{}}, IsError: true},
		{Output: 1, Content: []json.RawMessage{[]byte(`{"type":"text"}`), []byte("null")}},
		{Output: "x", Content: []json.RawMessage{[]byte(`"<"`)}, IsError: true},
	} {
		output, err := json.Marshal(r.Output)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(abi.ToolResult{V: abi.Version, Output: output, Content: r.Content, IsError: r.IsError})
		if err != nil {
			t.Fatal(err)
		}
		body = func(tool.Context) (any, error) { return r, nil }
		h := guest.Fake{In: []byte(`{"v":1,"tool":"run"}`)}
		if guest.Process().Enter(abi.ExportToolCall, &h) != 0 || string(h.Out) != string(want) {
			t.Errorf("got %s, want %s", h.Out, want)
		}
	}
}
