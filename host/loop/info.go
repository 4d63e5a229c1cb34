package loop

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/sdk/abi"
)

// info is what policies learn of the request. Its model is the one that serves
// this attempt, or the agent, as the targets are.
func (c *chain) info() abi.RequestInfo {
	r, q := c.run, c.run.brief.Request
	if c.modalities == nil {
		c.modalities = modalities(c.brief)
	}
	i := abi.RequestInfo{
		ID: r.claim.ID.String(), Tenant: r.claim.Tenant, Path: r.claim.Path, Model: c.claim.Served(),
		Tier: r.claim.Tier, Stream: q.Stream, Queued: !r.claim.Realtime, Failures: int(r.failures.Load()),
		AgeMS: r.age().Milliseconds(), InputBytes: int64(len(r.claim.Body)), Modalities: c.modalities,
		ToolCount: len(c.brief.Request.Functions) + len(c.kit.list), Metadata: q.Metadata,
	}
	if q.MaxOutputTokens != nil {
		i.MaxOutputTokens = *q.MaxOutputTokens
	}
	if end, ok := c.ctx.Deadline(); ok {
		i.DeadlineInMS = max(1, time.Until(end).Milliseconds())
	}
	return i
}

// modalities says what a brief's context and input hold beside text, which
// there always is.
func modalities(b response.Brief) []string {
	all := []string{"text"}
	for _, m := range []string{"image", "audio", "file"} {
		for _, it := range b.Items() {
			if holds(it.Raw, "input_"+m) {
				all = append(all, m)
				break
			}
		}
	}
	return all
}

// holds reports whether a message, or the output of a call, has a part of the
// type. Most items need no decoding to tell.
func holds(item json.RawMessage, kind string) bool {
	if !bytes.Contains(item, []byte(kind)) {
		return false
	}
	var it struct{ Content, Output json.RawMessage }
	if json.Unmarshal(item, &it) != nil {
		return false
	}
	for _, raw := range []json.RawMessage{it.Content, it.Output} {
		var parts []struct{ Type string }
		if json.Unmarshal(raw, &parts) != nil {
			continue
		}
		for _, p := range parts {
			if p.Type == kind {
				return true
			}
		}
	}
	return false
}
