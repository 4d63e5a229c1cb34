// Command fetch is a tool plugin that reads text from the web servers that its
// operator allows. It keeps no state and sends nothing but GET requests.
package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

func init() {
	tool.Plugin("fetch", "0.1.0", "Reads text from web servers that the operator allows.")
	tool.Want(abi.OpHTTPFetch)
	tool.Register(tool.Tool{
		Name: "fetch",
		Description: "Gets a URL and returns the HTTP status, the content type and the text, cut to max_bytes. " +
			"Only some servers are allowed; others are refused.",
		// A GET asks for nothing to be changed.
		Effects: tool.Idempotent,
		Timeout: 20 * time.Second,
	}, fetch)
	tool.WarmUp("fetch", args{URL: "https://warm-up.invalid/"})
}

func main() {}

// How much text is returned, in bytes.
const (
	defaultBytes = 16 << 10
	mostBytes    = 256 << 10
)

type args struct {
	URL      string `json:"url" jsonschema:"what to get, with https:// or http://"`
	MaxBytes int    `json:"max_bytes,omitempty" jsonschema:"how much of the text to return, 1 to 262144; 16384 if not given"`
}

type page struct {
	Status      int    `json:"status"` // of HTTP
	ContentType string `json:"content_type"`
	Text        string `json:"text"`
	Truncated   bool   `json:"truncated,omitempty"` // there is more text
}

func fetch(ctx tool.Context, a args) (page, error) {
	switch {
	case a.MaxBytes < 0 || a.MaxBytes > mostBytes:
		return page{}, tool.InvalidArgs("max_bytes: %d is not between 1 and %d", a.MaxBytes, mostBytes)
	case a.MaxBytes == 0:
		a.MaxBytes = defaultBytes
	}
	resp, err := ctx.HTTP(tool.Request{
		URL: a.URL, Header: tool.Header{{"accept", "text/*, application/json, */*;q=0.1"}},
		Timeout: 15 * time.Second, Stream: true,
	})
	if err != nil {
		return page{}, err
	}
	// What is not read is not sent either: the host drops the connection.
	defer resp.Stream.Close()
	p := page{Status: resp.Status, ContentType: resp.Header.Get("content-type")}
	if !isText(p.ContentType) {
		return page{}, tool.Permanent("%s: the content is %s, not text", a.URL, p.ContentType)
	}
	// One byte more tells whether there is more.
	data, err := io.ReadAll(io.LimitReader(resp.Stream, int64(a.MaxBytes)+1))
	if err != nil {
		return page{}, broken(a.URL, err)
	}
	p.Text, p.Truncated = cut(data, a.MaxBytes)
	return p, nil
}

// broken is the error of a body that ended before its end.
func broken(url string, err error) error {
	if errors.Is(err, abi.E2BIG) {
		return tool.Permanent("%s: %w", url, err)
	}
	return tool.Transient(-1, "%s: %w", url, err)
}

// isText reports whether a content type is text to read. One that is not said
// is tried.
func isText(contentType string) bool {
	t, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	t = strings.TrimSpace(t)
	switch {
	case t == "", strings.HasPrefix(t, "text/"):
		return true
	case strings.HasSuffix(t, "+json"), strings.HasSuffix(t, "+xml"):
		return true
	}
	for _, known := range []string{"json", "xml", "yaml", "javascript", "x-ndjson", "x-yaml"} {
		if t == fmt.Sprintf("application/%s", known) {
			return true
		}
	}
	return false
}

// cut returns at most n bytes of data as UTF-8, without half a character at
// its end, and whether there is more.
func cut(data []byte, n int) (text string, truncated bool) {
	if len(data) > n {
		data, truncated = data[:n], true
		for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
			last := data[len(data)-i:]
			if utf8.RuneStart(last[0]) {
				if !utf8.FullRune(last) {
					data = data[:len(data)-i]
				}
				break
			}
		}
	}
	return strings.ToValidUTF8(string(data), "\uFFFD"), truncated
}
