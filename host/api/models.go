package api

import (
	"net/http"
	"slices"
)

// model is a model as clients see it.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// modelCreated is when every alias was created: clients need a time, and one
// that no restart and no host changes.
const modelCreated = 1767225600 // 2026-01-01

func modelOf(name string) model {
	return model{ID: name, Object: "model", Created: modelCreated, OwnedBy: "casemate"}
}

func sortedModels(m Models) []string { return slices.Sorted(slices.Values(m.Models())) }

// models serves GET /v1/models.
func (a *API) models(x *exchange) error {
	list := []model{}
	for _, name := range sortedModels(a.Models) {
		if x.tenant.MayUse(name) {
			list = append(list, modelOf(name))
		}
	}
	return x.writeJSON(http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", list})
}

// model serves GET /v1/models/{id}.
func (a *API) model(x *exchange) error {
	if err := x.mayUse(x.path.id); err != nil {
		return err
	}
	return x.writeJSON(http.StatusOK, modelOf(x.path.id))
}
