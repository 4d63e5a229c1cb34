package batch

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// growing is a file that a batch writes at its end.
type growing struct {
	id    queue.ID
	n     int // chunks written
	bytes int64
	rest  []byte // not written yet
}

func (g *growing) add(line []byte) {
	g.rest = append(g.rest, line...)
	g.bytes += int64(len(line))
}

// full takes the chunks that are whole, or all when it is the end.
func (g *growing) full(end bool) (parts []store.PartOf) {
	for len(g.rest) >= store.FileChunk || (end && len(g.rest) > 0) {
		n := min(len(g.rest), store.FileChunk)
		parts = append(parts, store.PartOf{File: g.id, N: g.n, Data: g.rest[:n:n]})
		g.rest = g.rest[n:]
		g.n++
	}
	if len(g.rest) == 0 {
		g.rest = nil
	}
	return parts
}

// finalize writes the files of a batch all of whose lines have ended, counts
// these, and ends it. A host that does so after another has failed begins anew:
// each chunk is written by a step, so no two write at once.
func (h *held) finalize(ctx context.Context) (more bool, err error) {
	output, errs := growing{id: h.b.Output}, growing{id: h.b.Errors}
	b := h.b
	b.Completed, b.Failed = 0, 0
	expired := false
	var used tokens
	err = h.outputs.each(ctx, h.b, func(_ store.Line, e ended) error {
		file := &output
		if e.failed {
			file = &errs
			b.Failed++
		} else {
			b.Completed++
			used.add(e.answer)
		}
		expired = expired || e.expired
		file.add(e.text)
		for _, part := range file.full(false) {
			if err := h.step(ctx, store.BatchStep{Batch: h.b, Again: h.opt.Hold, Chunks: []store.PartOf{part}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if b.Usage, err = json.Marshal(used); err != nil {
		return false, fmt.Errorf("batch: usage: %w", err)
	}
	b.Version, b.State, b.Line = h.b.Version, store.BatchCompleted, 0 // settle begins there
	switch {
	case h.b.State == store.BatchCanceling:
		b.State = store.BatchCanceled
	case expired:
		b.State = store.BatchExpired
	}
	s := store.BatchStep{Batch: b, Again: h.opt.Settle, Chunks: append(output.full(true), errs.full(true)...)}
	for _, g := range []struct {
		*growing
		id *queue.ID
	}{{&output, &s.Batch.Output}, {&errs, &s.Batch.Errors}} {
		s.Grown = append(s.Grown, store.GrownFile{ID: g.growing.id, FileEnd: store.FileEnd{Bytes: g.bytes, ExpiresIn: b.OutputKeep}})
		if g.bytes == 0 {
			*g.id = queue.ID{}
		}
	}
	if err := h.step(ctx, s); err != nil {
		return false, err
	}
	h.opt.Logger.Info("batch ended", "batch", b.ID, "tenant", b.Tenant, "state", b.State, "completed", b.Completed, "failed", b.Failed)
	return false, nil
}
