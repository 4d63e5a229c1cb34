package guest

import (
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

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
