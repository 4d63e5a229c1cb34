package tokens_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/png"
	"strings"
	"sync"
	"testing"

	"github.com/tiktoken-go/tokenizer"

	"github.com/casemate/casemate/host/tokens"
)

func TestText(t *testing.T) {
	var c tokens.Counter
	for text, want := range map[string]int{
		"":            0,
		"hello world": 2,
		"Hello, 世界!":  4,
		"    ":        1,
	} {
		if got := c.Text(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

// A text is counted in parts, and the parts count as the whole does.
func TestLongTexts(t *testing.T) {
	var c tokens.Counter
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Repeat("The quick brown fox\njumps  over\t1234 lazy dogs'. ", 500)
	for name, tt := range map[string]struct {
		text string
		off  int // how many tokens the count may be off
	}{
		"words":             {words, 0},
		"one word":          {strings.Repeat("ab", 10_000), 20},
		"no spaces":         {strings.Repeat("漢字かな", 3000), 40},
		"spaces alone":      {strings.Repeat(" ", 10_000), 20},
		"spaces and breaks": {strings.Repeat(" \n", 3000), 20},
		"not UTF-8":         {strings.Repeat("\xff\xfe", 3000), 20},
	} {
		want, err := codec.Count(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Text(tt.text); got < want-tt.off || got > want+tt.off {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

// What is larger than is counted in full is counted by samples.
func TestLargeTexts(t *testing.T) {
	var c tokens.Counter
	line := "The quick brown fox jumps over the lazy dog. "
	one, many := c.Text(strings.Repeat(line, 1000)), c.Text(strings.Repeat(line, 40_000))
	if many < 39*one || many > 41*one {
		t.Errorf("got %d for forty times what is %d", many, one)
	}
}

func picture(t *testing.T, w, h int) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestItem(t *testing.T) {
	var c tokens.Counter
	b64 := base64.StdEncoding.EncodeToString
	sealed := "casemate1." + base64.RawURLEncoding.EncodeToString([]byte(`{"v":1,"summary":"hello world"}`))
	image := func(url, detail string) string {
		return `{"role":"user","content":[{"type":"input_image","image_url":"` + url + `","detail":"` + detail + `"}]}`
	}
	for _, tt := range []struct {
		name, item string
		want       int
	}{
		{"a message", `{"type":"message","role":"user","content":"hello world"}`, 6},
		{"without a type", `{"role":"user","content":"hello world"}`, 6},
		{"parts", `{"role":"assistant","content":[{"type":"output_text","text":"hello world"},{"type":"refusal","refusal":"hello"}]}`, 7},
		{"no content", `{"role":"user","content":null}`, 4},
		{"a call", `{"type":"function_call","name":"hello","arguments":"{}"}`, 4 + 1 + 1},
		{"a custom call", `{"type":"custom_tool_call","name":"hello","input":"hello world"}`, 4 + 1 + 2},
		{"an output", `{"type":"function_call_output","output":"hello world"}`, 6},
		{"an output of parts", `{"type":"function_call_output","output":[{"type":"input_text","text":"hello world"}]}`, 6},
		{"a server's call", `{"type":"mcp_call","name":"hello","arguments":"{}","output":"hello world"}`, 8 + 2 + 2},
		{"reasoning", `{"type":"reasoning","summary":[{"type":"summary_text","text":"hello world"}],"encrypted_content":"AAAA"}`, 6},
		{"a compaction", `{"type":"compaction","encrypted_content":"` + sealed + `"}`, 4 + c.Text(`{"v":1,"summary":"hello world"}`)},
		{"what no model is shown", `{"type":"web_search_call","id":"x"}`, 0},
		{"no item", `[]`, 0},
		{"no JSON", `{`, 0},
		{"an image of low detail", image(picture(t, 2000, 2000), "low"), 4 + 85},
		{"a square image", image(picture(t, 1024, 1024), "high"), 4 + 765},
		{"a tall image", image(picture(t, 2048, 4096), "auto"), 4 + 1105},
		{"a small image", image(picture(t, 10, 10), ""), 4 + 255},
		{"an image elsewhere", image("https://example.com/x.png", ""), 4 + 765},
		{"a broken image", image("data:image/png;base64,AAAA", ""), 4 + 765},
		{"a file of text", `{"role":"user","content":[{"type":"input_file","filename":"hello","file_data":"data:text/plain;base64,` + b64([]byte("hello world")) + `"}]}`, 4 + 1 + 2},
		{"another file", `{"role":"user","content":[{"type":"input_file","file_data":"` + b64(make([]byte, 4000)) + `"}]}`, 4 + 101},
		{"ten seconds of sound", `{"role":"user","content":[{"type":"input_audio","input_audio":{"format":"wav","data":"` + b64(make([]byte, 480_000)) + `"}}]}`, 4 + 101},
	} {
		if got := c.Item(json.RawMessage(tt.item)); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestTool(t *testing.T) {
	var c tokens.Counter
	schema := `{"type":"object","properties":{"city":{"type":"string"}}}`
	flat := c.Tool(json.RawMessage(`{"type":"function","name":"hello","description":"hello world","parameters":` + schema + `}`))
	if want := tokens.PerTool + 1 + 2 + c.Text(schema); flat != want {
		t.Errorf("got %d, want %d", flat, want)
	}
	wrapped := c.Tool(json.RawMessage(`{"type":"function","function":{"name":"hello","description":"hello world","parameters": ` + schema + `}}`))
	if wrapped != flat {
		t.Errorf("as Chat Completions has it: got %d, want %d", wrapped, flat)
	}
	for _, none := range []string{`{"type":"web_search"}`, `null`, `[`, ``} {
		if got := c.Tool(json.RawMessage(none)); got != 0 {
			t.Errorf("%q: got %d, want 0", none, got)
		}
	}
	if got := c.Schema(nil) + c.Schema(json.RawMessage("null")) + c.Schema(json.RawMessage("{")); got != 0 {
		t.Errorf("no schema: got %d, want 0", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	var c tokens.Counter
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := c.Text("hello world"); got != 2 {
					t.Errorf("got %d, want 2", got)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever an item is, it counts for something or nothing.
func FuzzItem(f *testing.F) {
	var c tokens.Counter
	for _, s := range []string{
		`{"role":"user","content":"hi"}`, `{"type":"mcp_call","output":{"a":1},"error":[1]}`, `{"content":[{"type":"input_image","image_url":{"url":7}}]}`,
		`{"type":"compaction","encrypted_content":"casemate1.e30="}`, `{"content":[{"type":"input_file","file_data":"data:;base64,%%"}]}`,
		`{"type":"reasoning","summary":{}}`, `{"content":[null,1,"x"]}`, `{"content":[{"type":"input_image","image_url":"data:image/gif;base64,R0lGODlh//////8="}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := c.Item(b) + c.Tool(b) + c.Schema(b); got < 0 {
			t.Errorf("got %d", got)
		}
	})
}
