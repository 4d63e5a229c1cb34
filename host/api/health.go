package api

import "net/http"

// healthz says that the process is up.
func (a *API) healthz(x *exchange) error {
	return x.writeJSON(http.StatusOK, map[string]string{"status": "ok"})
}

// readyz says whether the host can do its work, and what is wrong with it.
func (a *API) readyz(x *exchange) error {
	var conditions []Condition
	if a.Health != nil {
		conditions = a.Health.Ready()
	}
	if a.draining.Load() {
		conditions = append(conditions, Condition{Name: "draining", Message: "the host is shutting down"})
	}
	ready, status := true, http.StatusOK
	for _, c := range conditions {
		ready = ready && (c.OK || c.Optional)
	}
	if !ready {
		status = http.StatusServiceUnavailable
	}
	if conditions == nil {
		conditions = []Condition{}
	}
	return x.writeJSON(status, struct {
		Ready      bool        `json:"ready"`
		Conditions []Condition `json:"conditions"`
	}{ready, conditions})
}
