package sqlite

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func TestAllot(t *testing.T) {
	lane := func(vtime, weight float64, limit ...int64) room {
		r := room{vtime: vtime, weight: weight}
		if len(limit) > 0 {
			r.limit = sql.NullInt64{Int64: limit[0], Valid: true}
		}
		return r
	}
	for name, c := range map[string]struct {
		rooms []room
		n     int
		want  []int
	}{
		"equal":             {[]room{lane(0, 1), lane(0, 1), lane(0, 1)}, 6, []int{2, 2, 2}},
		"first of equals":   {[]room{lane(0, 1), lane(0, 1)}, 3, []int{2, 1}},
		"by weight":         {[]room{lane(0, 1), lane(0, 3)}, 8, []int{2, 6}},
		"who had less":      {[]room{lane(0, 1), lane(2, 1)}, 4, []int{3, 1}},
		"far behind":        {[]room{lane(0, 1), lane(9, 1)}, 4, []int{4, 0}},
		"capped":            {[]room{lane(0, 1, 1), lane(0, 1)}, 4, []int{1, 3}},
		"nobody has room":   {[]room{lane(0, 1, 1), lane(0, 1, 2)}, 9, []int{1, 2}},
		"none":              {nil, 3, []int{}},
		"small shares":      {[]room{lane(0, 0.5), lane(0, 1)}, 3, []int{1, 2}},
		"already at a tag":  {[]room{lane(1, 1), lane(1.5, 1)}, 2, []int{1, 1}},
		"nothing asked for": {[]room{lane(0, 1)}, 0, []int{0}},
	} {
		if got := allot(c.rooms, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// TestEscalatesBehindManyThatCannot: lanes whose other model has no slot for them
// are in the way of those behind them for a few claims at most.
func TestEscalatesBehindManyThatCannot(t *testing.T) {
	d := opened(t)
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var limits store.Limits
	var writes []store.Write
	for i := range 2*mostLooks + 1 {
		tenant, within := fmt.Sprint("t", i), time.Minute
		if i < 2*mostLooks {
			limits.Lanes = append(limits.Lanes, queue.Lane{Tenant: tenant, Model: "other", Weight: 1, Cap: 1})
			writes = append(writes, store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: tenant, Model: "other", Path: "/p", Worker: p.Worker}})
		} else {
			within = 2 * time.Minute
		}
		writes = append(writes, store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: tenant, Model: "m", Path: "/p", DeadlineIn: within}})
	}
	if err := d.SetLimits(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		claims, err := d.Claim(t.Context(), store.ClaimRequest{
			Worker: p.Worker, Models: []string{"m"}, N: 10, OnlyEscalate: []string{"m"},
			Escalate: map[string]queue.Escalation{"m": {To: "other", Within: time.Hour}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(claims) == 1 && claims[0].Escalated == "other" {
			return
		}
	}
	t.Error("four claims did not find the one request that another model can serve")
}
