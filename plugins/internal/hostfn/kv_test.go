package hostfn_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// kv is committed state.
type kv struct {
	state map[string]string
	keys  int   // more that are held
	bytes int64 // of those
	gets  int
	err   error
}

// Get implements capability.KV.
func (k *kv) Get(_ context.Context, key string) ([]byte, bool, error) {
	k.gets++
	v, ok := k.state[key]
	return []byte(v), ok, k.err
}

// List implements capability.KV.
func (k *kv) List(_ context.Context, prefix, after string, limit int) ([]string, error) {
	var keys []string
	for key := range k.state {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))], k.err
}

// Used implements capability.KV.
func (k *kv) Used(context.Context) (int, int64, error) {
	keys, bytes := k.keys+len(k.state), k.bytes
	for key, v := range k.state {
		bytes += int64(len(key) + len(v))
	}
	return keys, bytes, k.err
}

const (
	stored  = `{"status":204}`
	noKey   = `{"status":404}`
	failed  = `{"status":412,"error":"precondition_failed"}`
	full    = `{"status":507,"error":"quota_exceeded"}`
	tooMany = `{"status":507,"error":"too_many_writes"}`
)

// get returns the value and the etag of a key.
func get(t *testing.T, s *hostfn.Session, key string) (value, etag string) {
	t.Helper()
	head, value := ask(t, s, abi.OpKVGet, fmt.Sprintf(`{"key":%q}`, key), "")
	var r abi.KVReply
	if err := json.Unmarshal([]byte(head), &r); err != nil || r.Status != abi.StatusOK {
		return head, ""
	}
	return value, r.ETag
}

func list(t *testing.T, s *hostfn.Session, head string) string {
	t.Helper()
	h, body := ask(t, s, abi.OpKVList, head, "")
	return h + body
}

// puts spells the writes of a call.
func puts(s *hostfn.Session) string {
	var all []string
	for _, p := range s.Puts() {
		text := p.Key + "=" + string(p.Value)
		if p.Delete {
			text = p.Key + " gone"
		}
		if p.TTL > 0 {
			text += " for " + p.TTL.String()
		}
		if p.Checked {
			text += fmt.Sprintf(" if %v %q", p.Had, p.Was)
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// TestOwnWrites: a call sees what it wrote, in every op, and others do not.
func TestOwnWrites(t *testing.T) {
	port := &kv{state: map[string]string{"a": "1", "b": "2", "c": "3"}}
	s := newSession(t, capability.Env{KV: port})
	wantHead(t, s, abi.OpKVPut, `{"key":"b"}`, "two", stored)
	wantHead(t, s, abi.OpKVPut, `{"key":"d","ttl_ms":1500}`, "four", stored)
	wantHead(t, s, abi.OpKVDelete, `{"key":"a"}`, "ignored", stored)
	wantHead(t, s, abi.OpKVDelete, `{"key":"nothing"}`, "", stored)
	for key, want := range map[string]string{"a": noKey, "b": "two", "c": "3", "d": "four", "e": noKey} {
		if got, _ := get(t, s, key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if got, want := list(t, s, `{}`), `{"status":200}["b","c","d"]`; got != want {
		t.Errorf("list: got %s, want %s", got, want)
	}
	wantHead(t, s, abi.OpKVPut, `{"key":"a"}`, "again", stored)
	wantHead(t, s, abi.OpKVDelete, `{"key":"d"}`, "", stored)
	if got, want := list(t, s, `{}`), `{"status":200}["a","b","c"]`; got != want {
		t.Errorf("list: got %s, want %s", got, want)
	}
	if got, want := puts(s), `b=two; d=four for 1.5s; a gone; nothing gone; a=again; d gone`; got != want {
		t.Errorf("puts: got %s\nwant %s", got, want)
	}
	if port.state["b"] != "2" {
		t.Error("a write reached the port")
	}
}

// TestChecks: a write to a key that the call has seen holds only while the key
// is what it saw first.
func TestChecks(t *testing.T) {
	port := &kv{state: map[string]string{"seen": "1", "unseen": "1", "matched": "1"}}
	s := newSession(t, capability.Env{KV: port})
	get(t, s, "seen")
	port.state["seen"] = "2" // another call's
	if got, _ := get(t, s, "seen"); got != "1" {
		t.Errorf("the same key read again: got %q, want what was seen first", got)
	}
	get(t, s, "missing")
	_, etag := get(t, s, "matched")
	for _, tt := range [][3]string{
		{abi.OpKVPut, `{"key":"seen"}`, "a"},
		{abi.OpKVPut, `{"key":"seen"}`, "b"},
		{abi.OpKVPut, `{"key":"unseen"}`, "c"},
		{abi.OpKVDelete, `{"key":"missing"}`, ""},
		{abi.OpKVPut, `{"key":"matched","if_match":"` + etag + `"}`, "d"},
		{abi.OpKVPut, `{"key":"new","if_none_match":true}`, "e"},
	} {
		wantHead(t, s, tt[0], tt[1], tt[2], stored)
	}
	want := `seen=a if true "1"; seen=b; unseen=c; missing gone if false ""; matched=d if true "1"; new=e if false ""`
	if got := puts(s); got != want {
		t.Errorf("puts: got %s\nwant %s", got, want)
	}
}

func TestConditions(t *testing.T) {
	s := newSession(t, capability.Env{KV: &kv{state: map[string]string{"k": "1", "empty": ""}}})
	_, etag := get(t, s, "k")
	_, empty := get(t, s, "empty")
	if etag == "" || empty == "" || etag == empty {
		t.Fatalf("etags %q and %q", etag, empty)
	}
	match := func(key, etag string) string { return fmt.Sprintf(`{"key":%q,"if_match":%q}`, key, etag) }
	none := func(key string) string { return fmt.Sprintf(`{"key":%q,"if_none_match":true}`, key) }
	for _, tt := range []struct{ name, op, head, want string }{
		{"another value", abi.OpKVPut, match("k", empty), failed},
		{"not there", abi.OpKVPut, match("x", etag), failed},
		{"there already", abi.OpKVPut, none("k"), failed},
		{"there already, empty", abi.OpKVPut, none("empty"), failed},
		{"a delete of another value", abi.OpKVDelete, match("k", "x"), failed},
		{"a match", abi.OpKVPut, match("k", etag), stored},
		{"no match any more", abi.OpKVPut, match("k", etag), failed},
		{"both", abi.OpKVPut, `{"key":"k","if_match":"x","if_none_match":true}`, `{"status":400,"error":"invalid_request"}`},
		{"none", abi.OpKVPut, none("new"), stored},
		{"none any more", abi.OpKVPut, none("new"), failed},
		{"a delete of what is there", abi.OpKVDelete, match("empty", empty), stored},
		{"none after a delete", abi.OpKVPut, none("empty"), stored},
	} {
		t.Run(tt.name, func(t *testing.T) { wantHead(t, s, tt.op, tt.head, "v", tt.want) })
	}
	if got, want := puts(s), `k=v if true "1"; new=v if false ""; empty gone if true ""; empty=v`; got != want {
		t.Errorf("puts: got %s\nwant %s", got, want)
	}
}

func TestList(t *testing.T) {
	state := map[string]string{}
	for i := range 30 {
		state[fmt.Sprintf("n/%02d", i)] = "v"
	}
	state["m"], state["o"] = "v", "v"
	s := newSession(t, capability.Env{KV: &kv{state: state}})
	for i := range 30 {
		if i%2 == 0 {
			wantHead(t, s, abi.OpKVDelete, fmt.Sprintf(`{"key":"n/%02d"}`, i), "", stored)
		}
	}
	wantHead(t, s, abi.OpKVPut, `{"key":"n/00x"}`, "", stored)
	wantHead(t, s, abi.OpKVPut, `{"key":"n/zz"}`, "", stored)
	for head, want := range map[string]string{
		`{"prefix":"n/","limit":3}`:                     `{"status":200,"more":true}["n/00x","n/01","n/03"]`,
		`{"prefix":"n/","after":"n/03","limit":2}`:      `{"status":200,"more":true}["n/05","n/07"]`,
		`{"prefix":"n/","after":"n/27","limit":2}`:      `{"status":200}["n/29","n/zz"]`,
		`{"prefix":"n/","after":"n/27","limit":1}`:      `{"status":200,"more":true}["n/29"]`,
		`{"prefix":"n/","after":"n/zz"}`:                `{"status":200}[]`,
		`{"after":"n/zz"}`:                              `{"status":200}["o"]`,
		`{"prefix":"q"}`:                                `{"status":200}[]`,
		`{"limit":1001}`:                                `{"status":400,"error":"invalid_request"}`,
		`{"limit":-1}`:                                  `{"status":400,"error":"invalid_request"}`,
		``:                                              `{"status":400,"error":"invalid_request"}`,
		`{"prefix":"` + strings.Repeat("k", 513) + `"}`: `{"status":400,"error":"invalid_key"}`,
		`{"after":"a\u0000"}`:                           `{"status":400,"error":"invalid_key"}`,
	} {
		if got := list(t, s, head); got != want {
			t.Errorf("%s: got %s, want %s", head, got, want)
		}
	}
}

func TestWriteCaps(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		puts int // that fit
	}{
		{"count", 1, abi.MaxKVPuts},
		{"volume", abi.MaxKVValue, (abi.MaxKVPutBytes - 1) / (abi.MaxKVValue + 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, capability.Env{KV: &kv{}})
			for i := range tt.puts + 1 {
				want := stored
				if i == tt.puts {
					want = tooMany
				}
				wantHead(t, s, abi.OpKVPut, `{"key":"k"}`, strings.Repeat("x", tt.size), want)
			}
			if len(s.Puts()) != tt.puts {
				t.Errorf("kept %d puts, want %d", len(s.Puts()), tt.puts)
			}
		})
	}
	s := newSession(t, capability.Env{KV: &kv{}})
	for range abi.MaxKVPuts {
		wantHead(t, s, abi.OpKVDelete, `{"key":"k"}`, "", stored)
	}
	wantHead(t, s, abi.OpKVDelete, `{"key":"k"}`, "", tooMany)
	wantHead(t, s, abi.OpKVPut, `{"key":"k","ttl_ms":-1}`, "", `{"status":400,"error":"invalid_ttl"}`)
	wantHead(t, s, abi.OpKVPut, `{"key":"k","ttl_ms":3153600000001}`, "", `{"status":400,"error":"invalid_ttl"}`)
	s = newSession(t, capability.Env{KV: &kv{}})
	wantHead(t, s, abi.OpKVPut, `{"key":"k","ttl_ms":3153600000000}`, "", stored)
	if got := s.Puts()[0].TTL; got != 100*365*24*time.Hour {
		t.Errorf("TTL %v, want 100 years", got)
	}
}

func TestQuota(t *testing.T) {
	const most = abi.QuotaKVBytes
	for _, tt := range []struct {
		name   string
		kv     kv
		writes [][3]string // op, key, value
		want   []string
	}{
		{"a key too many", kv{keys: abi.QuotaKVKeys - 1}, [][3]string{{abi.OpKVPut, "a", ""}, {abi.OpKVPut, "b", ""}, {abi.OpKVPut, "a", "x"}}, []string{stored, full, stored}},
		{"a key for a key", kv{keys: abi.QuotaKVKeys - 1, state: map[string]string{"a": ""}}, [][3]string{
			{abi.OpKVPut, "a", "x"}, {abi.OpKVPut, "b", ""}, {abi.OpKVDelete, "a", ""}, {abi.OpKVPut, "b", ""}, {abi.OpKVPut, "a", ""},
		}, []string{stored, full, stored, stored, full}},
		{"a byte too many", kv{bytes: most - 10}, [][3]string{{abi.OpKVPut, "a", "12345678"}, {abi.OpKVPut, "a", "123456789"}, {abi.OpKVPut, "a", "1234567890"}}, []string{stored, stored, full}},
		{"over it already", kv{bytes: most, state: map[string]string{"a": "12345"}}, [][3]string{
			{abi.OpKVPut, "a", "123456"}, {abi.OpKVPut, "a", "12345"}, {abi.OpKVPut, "a", "1"}, {abi.OpKVDelete, "a", ""},
		}, []string{full, stored, stored, stored}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, capability.Env{KV: &tt.kv})
			for i, w := range tt.writes {
				wantHead(t, s, w[0], fmt.Sprintf(`{"key":%q}`, w[1]), w[2], tt.want[i])
			}
			for _, p := range s.Puts() {
				if p.Checked {
					t.Errorf("the quota's own look at %s is checked at the commit", p.Key)
				}
			}
		})
	}
	port := &kv{state: map[string]string{"a": "1"}}
	s := newSession(t, capability.Env{KV: port})
	wantHead(t, s, abi.OpKVPut, `{"key":"a"}`, "2", stored)
	if port.gets != 0 {
		t.Errorf("a put far from the quota asked %d times for the old value", port.gets)
	}
}

func TestKeys(t *testing.T) {
	s := newSession(t, capability.Env{KV: &kv{}})
	const key, request = `{"status":400,"error":"invalid_key"}`, `{"status":400,"error":"invalid_request"}`
	for _, op := range []string{abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete} {
		for head, want := range map[string]string{
			`{}`: key, `{"key":""}`: key, `{"key":"a\u0000"}`: key, `{"key":"\ud800"}`: key, `{"key":"` + strings.Repeat("k", 513) + `"}`: key,
			``: request, `{`: request, `{"key":1}`: request, "{\"key\":\"\xff\"}": request,
		} {
			wantHead(t, s, op, head, "", want)
		}
	}
	wantHead(t, s, abi.OpKVPut, `{"key":"`+strings.Repeat("k", 512)+`"}`, "", stored)
	wantHead(t, s, abi.OpKVPut, `{"key":"\ufffd"}`, "", stored)
	wantHead(t, s, abi.OpKVPut, `{"key":"k"}`, strings.Repeat("v", abi.MaxKVValue+1), `{"status":413,"error":"value_too_large"}`)
}

func TestPutKeepsNoGuestMemory(t *testing.T) {
	s := newSession(t, capability.Env{KV: &kv{}})
	req := abi.EncodeFrame([]byte(`{"key":"k"}`), []byte("value"))
	if _, err := s.Call(t.Context(), abi.OpKVPut, req); err != nil {
		t.Fatal(err)
	}
	clear(req)
	if got := s.Puts()[0]; got.Key != "k" || string(got.Value) != "value" {
		t.Errorf("put = %q %q", got.Key, got.Value)
	}
}
