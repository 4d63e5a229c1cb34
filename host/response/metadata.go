package response

import "encoding/json"

// ParseMetadata reads the metadata of anything that has some, as a request has
// it: nil for null and for nothing. The error is a *BadRequest.
func ParseMetadata(raw json.RawMessage) (map[string]string, error) {
	f := &fields{m: map[string]json.RawMessage{"metadata": raw}}
	m := f.metadata()
	return m, f.failed()
}
