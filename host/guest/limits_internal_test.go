package guest

import (
	"reflect"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
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
	if got := over(base, other); got != other {
		t.Errorf("got %+v, want %+v", got, other)
	}
	if got := over(base, plugins.Limits{}); got != base {
		t.Errorf("nothing over it: got %+v, want %+v", got, base)
	}
}

func TestWall(t *testing.T) {
	for _, tt := range []struct {
		name         string
		asked, limit time.Duration
		want         time.Duration
	}{
		{"neither", 0, 0, 0},
		{"the tool asks", 5 * time.Second, 0, 5 * time.Second},
		{"the operator limits", 0, time.Second, time.Second},
		{"the tool asks for more", 5 * time.Second, time.Second, time.Second},
		{"the tool asks for less", time.Second, 5 * time.Second, time.Second},
	} {
		got := wall(abi.ToolDescriptor{TimeoutMS: tt.asked.Milliseconds()}, plugins.Limits{Wall: tt.limit})
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
