package upstream

import (
	"bytes"
	"encoding/json"

	"github.com/casemate/casemate/host/object"
)

// withModel returns a valid JSON object with every "model" member replaced by
// model, or with one put first where there is none. All other bytes stay.
func withModel(b []byte, model string) ([]byte, error) {
	quoted, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(b)+len(quoted)+len(`"model":,`))
	copied, found, members := 0, false, 0
	for key, at := range object.Members(b) {
		members++
		if string(key) == "model" {
			out = append(append(out, b[copied:at.Start]...), quoted...)
			copied, found = at.End, true
		}
	}
	if !found {
		open := bytes.IndexByte(b, '{') + 1
		out = append(append(append(out, b[:open]...), `"model":`...), quoted...)
		if members > 0 {
			out = append(out, ',')
		}
		copied = open
	}
	return append(out, b[copied:]...), nil
}
