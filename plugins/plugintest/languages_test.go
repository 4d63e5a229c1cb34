package plugintest_test

import (
	"testing"

	"github.com/casemate/casemate/plugins/internal/testguests"
	"github.com/casemate/casemate/plugins/plugintest"
)

// TestLanguages: guests in every language conform, but for two of their tools,
// which do nothing else than break the contract.
func TestLanguages(t *testing.T) {
	for _, language := range testguests.Languages() {
		t.Run(language, func(t *testing.T) {
			r, err := plugintest.Check(t.Context(), testguests.Wasm(t, language), plugintest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			bad := map[string]bool{"tool trap": false, "tool spin": false}
			for _, f := range r.Findings {
				if _, known := bad[f.Check]; !known && f.Level == plugintest.Problem {
					t.Error(f)
				}
				bad[f.Check] = true
			}
			for check, found := range bad {
				if !found {
					t.Errorf("nothing was found with %s", check)
				}
			}
		})
	}
}
