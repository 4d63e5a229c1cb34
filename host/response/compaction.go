package response

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// compactionPrefix begins the encrypted_content of this host's compactions. It
// is not encrypted: it holds nothing but what its client was told.
const compactionPrefix = "casemate1."

type compactionContent struct {
	V       int    `json:"v"`
	Summary string `json:"summary"`
}

// Compaction returns the encrypted_content of a compaction item whose summary
// stands for the items before it.
func Compaction(summary string) string {
	return compactionPrefix + base64.RawURLEncoding.EncodeToString(marshal(compactionContent{1, summary}))
}

// CompactionSummary returns the summary in a compaction item of this host.
func CompactionSummary(item json.RawMessage) (string, bool) {
	var it struct {
		Content string `json:"encrypted_content"`
	}
	if json.Unmarshal(item, &it) != nil {
		return "", false
	}
	return readCompaction(it.Content)
}

func readCompaction(content string) (string, bool) {
	sealed, ok := strings.CutPrefix(content, compactionPrefix)
	if !ok {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	var c compactionContent
	if err != nil || json.Unmarshal(b, &c) != nil || c.V != 1 || c.Summary == "" {
		return "", false
	}
	return c.Summary, true
}

// compaction checks a compaction item: no host can read another's.
func (f *fields) compaction() {
	content := f.required("encrypted_content")
	if _, ok := readCompaction(content); !ok {
		f.fail("encrypted_content", "unsupported_value", "This compaction was not made by this host: send the items that it stands for.")
	}
}
