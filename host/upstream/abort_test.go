package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

// TestUpstreamLearnsOfTheEnd checks on a real connection that an endpoint sees a
// call end when its caller ends it, before the head of the answer and amid a
// stream: else it would go on, and be paid for, for nobody.
func TestUpstreamLearnsOfTheEnd(t *testing.T) {
	for _, streams := range []bool{false, true} {
		reached, ended := make(chan struct{}), make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if streams {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: {\"choices\":[]}\n\n")
				_ = http.NewResponseController(w).Flush()
			} else {
				close(reached)
			}
			<-r.Context().Done()
			close(ended)
		}))
		defer srv.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			<-reached
			cancel(queue.ErrClientGone)
		}()
		_, err := client(t, config(srv.URL+"/v1")).Do(ctx, upstream.Call{
			Target: "up/real", Model: "m", Path: "/x", Body: []byte(streamBody),
			OnData: func([]byte) error { close(reached); return nil },
		})
		if !errors.Is(err, queue.ErrClientGone) {
			t.Errorf("got %v, want the cause kept", err)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the endpoint still works on it")
		}
	}
}
