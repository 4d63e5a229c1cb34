// Package tokens counts the tokens of what a model is sent, before it is sent:
// texts by OpenAI's o200k encoding, and what is no text by rules that are
// written down here. Other models count otherwise, so a count is an estimate:
// good enough to refuse what cannot fit, not to bill. It does no I/O.
package tokens

import (
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer"
)

// What is added to the texts, as OpenAI documents it for chat models.
const (
	// PerRequest is what every request costs besides its messages: the answer
	// is primed with it.
	PerRequest = 3
	// PerMessage is what a message, a call or an output costs besides its text:
	// its role and what stands around it.
	PerMessage = 4
	// PerTool is what the definition of a tool costs besides its texts.
	PerTool = 8
)

// Counter counts tokens. The zero value is ready; the first count loads the
// vocabulary, some 200,000 entries. It is safe for concurrent use.
type Counter struct {
	once  sync.Once
	codec tokenizer.Codec
	err   error
}

// load makes the codec. Codecs that count do not change, so one is enough.
func (c *Counter) load() {
	c.codec, c.err = tokenizer.Get(tokenizer.O200kBase)
	if c.err != nil {
		c.err = fmt.Errorf("tokens: %w", c.err)
	}
}

const (
	// chunk is how many bytes are counted at a time: what the encoder takes for
	// some runs of white space grows with the square of their length.
	chunk = 2 << 10
	// exact is up to how many bytes a text is counted in full; of a longer one
	// every chunk that is counted stands for several. A large text costs no
	// more than this one, so nobody can keep a processor busy with one.
	exact = 1 << 20
)

// Text returns how many tokens s is.
func (c *Counter) Text(s string) int {
	if s == "" {
		return 0
	}
	c.once.Do(c.load)
	if c.err != nil {
		return guess(s)
	}
	every := (len(s) + exact - 1) / exact
	total, sampled, size := 0, 0, len(s)
	for i := 0; s != ""; i++ {
		n := cut(s, chunk)
		if i%every == 0 {
			total += c.count(s[:n])
			sampled += n
		}
		s = s[n:]
	}
	if sampled == size {
		return total
	}
	return int(int64(total) * int64(size) / int64(sampled))
}

// count counts a text as a whole.
func (c *Counter) count(s string) int {
	n, err := c.codec.Count(s)
	if err != nil {
		return guess(s)
	}
	return n
}

// guess is what a text that the encoder does not take counts for: English has
// about four bytes a token.
func guess(s string) int { return (len(s) + 3) / 4 }

// cut returns where a text is cut so that its first part has at most limit
// bytes: before a space that follows something else, where no token ends up in
// two parts, or if there is none, between two runes.
func cut(s string, limit int) int {
	if len(s) <= limit {
		return len(s)
	}
	for i := limit; i > limit/2; i-- {
		if s[i] == ' ' && !space(s[i-1]) {
			return i
		}
	}
	for i := limit; i > limit-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return i
		}
	}
	return limit
}

// space reports whether b is white space, or may be a part of it.
func space(b byte) bool { return b <= ' ' || b >= utf8.RuneSelf }
