package plugins_test

import (
	"reflect"
	"testing"

	"github.com/casemate/casemate/plugins"
)

func TestOverTakesEveryField(t *testing.T) {
	base := plugins.Limits{Fuel: 1, Wall: 1, MemoryBytes: 1, OutputBytes: 1, LogLines: 1, LogBytes: 1, Emits: 1, Calls: 1}
	set := reflect.ValueOf(base)
	for i := range set.NumField() {
		if set.Field(i).IsZero() {
			t.Fatalf("the test does not know %s", set.Type().Field(i).Name)
		}
	}
	other := plugins.Limits{Fuel: 2, Wall: 2, MemoryBytes: 2, OutputBytes: 2, LogLines: 2, LogBytes: 2, Emits: 2, Calls: 2}
	if got := other.Over(base); got != other {
		t.Errorf("got %+v, want %+v", got, other)
	}
	if got := (plugins.Limits{}).Over(base); got != base {
		t.Errorf("nothing over it: got %+v, want %+v", got, base)
	}
}
