package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"
)

// metrics shows the counters of this host. They name its tenants, so a host
// with tenants shows them to its operator alone.
func (a *API) metrics(x *exchange) error {
	_, open := a.Tenants.Open()
	switch key, _ := bearer(x.r.Header); {
	case a.Metrics == nil:
		return &Error{Status: http.StatusNotFound, Code: "unknown_url", Message: "This host keeps no metrics."}
	case a.MetricsKey == "" && !open:
		return &Error{
			Status: http.StatusForbidden, Code: "metrics_key_needed",
			Message: "A host with tenants shows its metrics only by a key: its operator sets metrics.key_env.",
		}
	case a.MetricsKey != "" && !sameKey(key, a.MetricsKey):
		return &Error{
			Status: http.StatusUnauthorized, Code: "invalid_api_key",
			Message: "The key of metrics.key_env is needed: send it as 'Authorization: Bearer KEY'.",
		}
	}
	x.allowWrite()
	defer x.restWrite()
	a.Metrics.ServeHTTP(&noted{x.w, x}, x.r)
	return nil
}

// sameKey compares in a time that tells nothing of want.
func sameKey(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// noted tells the exchange what a handler of another package answers.
type noted struct {
	http.ResponseWriter
	x *exchange
}

// WriteHeader implements http.ResponseWriter.
func (w *noted) WriteHeader(status int) {
	if w.x.status == 0 {
		w.x.status, w.x.first = status, time.Now()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *noted) Write(p []byte) (int, error) {
	if w.x.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}
