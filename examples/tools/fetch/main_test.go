package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/plugins/egress/egresstest"
	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/plugins/plugintest/plugintesting"
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/guesttest"
	"github.com/casemate/casemate/sdk/tool"
	"github.com/casemate/casemate/sdk/tool/tooltest"
)

// call makes one call that may send requests by web.
func call(t *testing.T, p *plugins.Plugin, input []byte, web capability.HTTP) guesttest.Result {
	t.Helper()
	r := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: input, Env: capability.Env{
		Tenant: "default", Granted: map[string]bool{abi.OpHTTPFetch: true}, HTTP: web,
	}})
	switch {
	case r.Fail != nil:
		return guesttest.Result{Code: r.Fail.Code.String(), Text: r.Fail.Text}
	case r.Class != plugins.OK:
		return guesttest.Result{Code: string(r.Class), Text: r.Detail}
	}
	return guesttest.Result{Output: r.Output}
}

func TestConformance(t *testing.T) {
	plugintesting.Check(t, guesttest.Build(t, "."), "testdata/calls.json", plugintest.Options{HTTP: docs{}})
}

// docs is the site of the expected calls: https://docs.test.
type docs struct{}

// pages are content type and text by path.
var pages = map[string][2]string{
	"/":      {"text/html; charset=utf-8", "<h1>Grüße</h1>"},
	"/long":  {"text/plain", strings.Repeat("0123456789", 10_000)},
	"/latin": {"text/plain; charset=latin1", "Gr\xfc\xdfe"},
	"/data":  {"application/json", `{"n":1}`},
	"/feed":  {"application/atom+xml", "<feed/>"},
	"/none":  {"", "plain"},
	"/image": {"image/png", "\x89PNG"},
	"/empty": {"text/plain", ""},
}

// Do implements capability.HTTP.
func (docs) Do(_ context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	path, ok := strings.CutPrefix(r.URL, "https://docs.test")
	switch {
	case !strings.HasPrefix(r.URL, "http"):
		return nil, &capability.HTTPError{Code: abi.HTTPInvalidURL}
	case !ok:
		return nil, &capability.HTTPError{Code: abi.HTTPDenied}
	case path == "/slow":
		return nil, &capability.HTTPError{Code: abi.HTTPTimeout}
	}
	page, ok := pages[path]
	status := http.StatusOK
	if !ok {
		status, page = http.StatusNotFound, [2]string{"text/plain", "no such page"}
	}
	return &capability.HTTPResponse{
		Status: status, Header: []capability.HTTPHeader{{Name: "content-type", Value: page[0]}},
		Body: io.NopCloser(strings.NewReader(page[1])),
	}, nil
}

// TestServer fetches from a server by the rules of an operator.
func TestServer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(out, r, "http://other.test/", http.StatusFound)
			return
		}
		_, _ = out.Write([]byte(r.Method + " " + r.URL.Path))
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	var names egresstest.Names
	names.Set("docs.test", []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	names.Set("sly.test", []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	web := egress.New(egress.Options{
		Rules: []egress.Rule{
			{Scheme: "http", Host: "docs.test", Port: port, Private: true},
			{Scheme: "http", Host: "sly.test", Port: port},
		},
		Resolver: names.Resolver(),
	})
	defer web.Close()
	p := plugintesting.Load(t, guesttest.Build(t, "."))
	for at, want := range map[string]string{
		"docs.test/a":    `{"status":200,"content_type":"text/plain; charset=utf-8","text":"GET /a"}`,
		"docs.test/away": "denied",
		"sly.test/a":     "denied",
	} {
		host, path, _ := strings.Cut(at, "/")
		arguments, err := json.Marshal(args{URL: "http://" + host + ":" + u.Port() + "/" + path})
		if err != nil {
			t.Fatal(err)
		}
		input, err := json.Marshal(abi.ToolCall{V: abi.Version, Tool: "fetch", Arguments: arguments})
		if err != nil {
			t.Fatal(err)
		}
		got := call(t, p, input, web)
		if got.Code != "" {
			got.Output = []byte(got.Code)
		} else {
			want = `{"v":1,"output":` + want + `}`
		}
		if string(got.Output) != want {
			t.Errorf("%s: got %s (%s), want %s", at, got.Output, got.Text, want)
		}
	}
}

// TestCut: text ends between characters, and no body stays open.
func TestCut(t *testing.T) {
	for n, want := range map[string]string{
		"1": "a", "2": "a", "3": "aü", "4": "aü", "5": "aü", "6": "aü€", "7": "aü€b", "8": "aü€b", "0": "aü€b",
	} {
		r, err := tooltest.Run(tooltest.Call{
			Tool: "fetch", Arguments: `{"url":"https://a.test","max_bytes":` + n + `}`,
			HTTP: func(tool.Request) (tool.Response, error) {
				return tool.Response{Status: 200, Body: []byte("aü€b")}, nil
			},
		})
		if err != nil || r.Fail != nil || r.Streams != 0 {
			t.Fatalf("%s bytes: got %+v, %v, %d bodies open", n, r.Fail, err, r.Streams)
		}
		var p page
		if err := json.Unmarshal(r.Output, &p); err != nil {
			t.Fatal(err)
		}
		if p.Text != want || p.Truncated != (want != "aü€b") {
			t.Errorf("%s bytes: got %q, truncated %v; want %q", n, p.Text, p.Truncated, want)
		}
	}
}
