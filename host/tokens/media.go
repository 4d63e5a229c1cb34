package tokens

import (
	"bytes"
	"encoding/base64"
	picture "image"
	_ "image/gif"  // sizes of GIFs
	_ "image/jpeg" // sizes of JPEGs
	_ "image/png"  // sizes of PNGs
	"io"
	"strings"
	"unicode/utf8"
)

// The rule for images is the one that OpenAI documents for its models with
// tiles: an image of low detail costs a base; any other is made to fit a square
// and then a shortest side, and costs the base and something for each tile.
const (
	imageBase = 85
	imageTile = 170
	tileSide  = 512
	fitSide   = 2048
	shortSide = 768
	// unknownSide is the side that an image is taken to have whose size the
	// host cannot see: one behind a URL, or of another format.
	unknownSide = 1024
	// headBytes is how much of an image is looked at for its size.
	headBytes = 64 << 10
)

// image returns how many tokens an image is.
func image(url, detail string) int {
	if detail == "low" {
		return imageBase
	}
	w, h := size(url)
	if long := max(w, h); long > fitSide {
		w, h = scale(w, fitSide, long), scale(h, fitSide, long)
	}
	if short := min(w, h); short > shortSide {
		w, h = scale(w, shortSide, short), scale(h, shortSide, short)
	}
	return imageBase + imageTile*tiles(w)*tiles(h)
}

func scale(n, to, from int) int { return max(1, n*to/from) }

func tiles(side int) int { return (side + tileSide - 1) / tileSide }

// size returns the size of the image in a data: URL.
func size(url string) (width, height int) {
	data, ok := dataURL(url)
	if ok {
		head := io.LimitReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)), headBytes)
		c, _, err := picture.DecodeConfig(head)
		if err == nil && c.Width > 0 && c.Height > 0 && c.Width < 1<<20 && c.Height < 1<<20 {
			return c.Width, c.Height
		}
	}
	return unknownSide, unknownSide
}

// dataURL returns the base64 of a data: URL.
func dataURL(url string) (data string, ok bool) {
	rest, ok := strings.CutPrefix(url, "data:")
	if !ok {
		return "", false
	}
	head, data, ok := strings.Cut(rest, ",")
	if !ok || !strings.HasSuffix(head, ";base64") {
		return "", false
	}
	return data, true
}

// fileBytes is how many bytes of a file that is no text count for a token. Only
// the upstream knows what it makes of a PDF; a page of text in one has about
// ten times its bytes.
const fileBytes = 40

// file returns how many tokens the data of a file is: those of its text, where
// it is one.
func (c *Counter) file(data string) int {
	if data == "" {
		return 0
	}
	if inner, ok := dataURL(data); ok {
		data = inner
	}
	b, err := base64.StdEncoding.DecodeString(data)
	switch {
	case err != nil:
		return c.Text(data)
	case utf8.Valid(b) && bytes.IndexByte(b, 0) < 0:
		return c.Text(string(b))
	}
	return len(b)/fileBytes + 1
}

// audio returns how many tokens a sound is, at ten a second: WAV is taken to
// have 48,000 bytes a second, the others 16,000.
func audio(data, format string) int {
	n := base64.StdEncoding.DecodedLen(len(data))
	if format == "wav" {
		return n/4800 + 1
	}
	return n/1600 + 1
}
