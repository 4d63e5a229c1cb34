package translate

import "github.com/casemate/casemate/host/response"

// ChatPassage reads a chat completion that goes to the client as it is, to know
// how it ends, what it costs and what it amounts to. It is not safe for
// concurrent use.
type ChatPassage struct{ reader chatReader }

// NewChatPassage returns a ChatPassage of one answer.
func NewChatPassage() *ChatPassage {
	return &ChatPassage{chatReader{gathered: gathered{mute: true}, byIndex: map[int]*gatheredCall{}}}
}

// Chunk reads the data of one event; usage: it holds nothing but the usage. The
// errors are Reader's.
func (p *ChatPassage) Chunk(data []byte) (usage bool, err error) {
	_, err = p.reader.Chunk(data)
	return p.reader.counted, err
}

// Body reads a whole answer. The errors are Reader's.
func (p *ChatPassage) Body(data []byte) error {
	_, err := p.reader.Body(data)
	return err
}

// Output is Reader.Output.
func (p *ChatPassage) Output() (response.ModelOutput, error) { return p.reader.Output() }

// Usage is Reader.Usage.
func (p *ChatPassage) Usage() response.Usage { return p.reader.Usage() }
