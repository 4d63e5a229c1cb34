package response_test

import (
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// A code that a client can act on is passed on; what it says is the host's words.
func TestFailureOfARefusedRequest(t *testing.T) {
	for _, tc := range []struct {
		status     int
		code, want string
		told       int
	}{
		{400, "context_length_exceeded", "context_length_exceeded", 400},
		{413, "context_length_exceeded", "context_length_exceeded", 413},
		{400, "invalid_image_url", "invalid_image_url", 400},
		{400, "content_filter", "invalid_prompt", 400},
		{400, "unsupported_value", "invalid_prompt", 400},
		{422, "", "invalid_prompt", 422},
		{401, "context_length_exceeded", "server_error", 502},
		{500, "server_error", "server_error", 502},
	} {
		f := response.FailureOf(response.Step{Class: queue.UpstreamStatus, Status: tc.status, Code: tc.code, State: response.Failed})
		if f.Code != tc.want || f.Status != tc.told || f.Message == "" {
			t.Errorf("%d %s: got %+v, want %s %d", tc.status, tc.code, f, tc.want, tc.told)
		}
	}
}
