package sqlite

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// hot are the statements of the request path, of heartbeats and of the sweep,
// with the step of their plan that finds the rows.
var hot = map[string]struct{ query, want string }{
	"probe a model":        {probeModel, "SEARCH lane USING COVERING INDEX lane_"},
	"pick by virtual time": {pickFair, "SEARCH lane USING INDEX lane_fair (model=?)"},
	"pick by deadline":     {pickUrgent, "SEARCH lane USING INDEX lane_edf (model=? AND head_deadline<?)"},
	"pick what escalates":  {pickEscalating, "SEARCH r EXISTS USING COVERING INDEX request_near (lane=? AND deadline>? AND deadline<?)"},
	"take":                 {takeRows, "SEARCH request USING INDEX request_lane (lane=? AND ord>? AND ord<?)"},
	"take what escalates":  {takeNear, "SEARCH request USING COVERING INDEX request_near (lane=? AND deadline>? AND deadline<?)"},
	"next head":            {selectHead, "SEARCH request USING INDEX request_lane (lane=? AND ord>?)"},
	"claim":                {claimRequest, "SEARCH request USING PRIMARY KEY (id=?)"},
	"charge a lane":        {chargeLane, "SEARCH lane USING INTEGER PRIMARY KEY (rowid=?)"},
	"charge another":       {chargeIdle, "INDEX lane_fair (model=?)"},
	"charge a gate":        {chargeGate, "SEARCH tenant_gate USING PRIMARY KEY (tenant=?)"},
	"fence":                {selectOwner, "SEARCH r USING PRIMARY KEY (id=?)"},
	"room in a lane":       {selectLaneRoom, "SEARCH lane USING INTEGER PRIMARY KEY (rowid=?)"},
	"room in a gate":       {selectGateRoom, "SEARCH lane USING COVERING INDEX lane_tenant (tenant=?)"},
	"move":                 {moveRequest, "SEARCH request USING PRIMARY KEY (id=?)"},
	"occupy a lane":        {occupyLane, "SEARCH lane USING INTEGER PRIMARY KEY (rowid=?)"},
	"occupy a gate":        {occupyGate, "SEARCH tenant_gate USING PRIMARY KEY (tenant=?)"},
	"ungate":               {ungateLanes, "SEARCH lane USING COVERING INDEX lane_gated (tenant=?)"},
	"repark":               {reparkLane, "INDEX lane_fair (model=?)"},
	"wake":                 {wakeLane, "INDEX lane_fair (model=?)"},
	"settle":               {settleLane, "SEARCH lane USING INTEGER PRIMARY KEY (rowid=?)"},
	"close steps":          {closeSteps, "SEARCH step USING INDEX sqlite_autoindex_step_1 (request=?)"},
	"usage":                {insertUsage, "SEARCH r USING PRIMARY KEY (id=?)"},
	"get":                  {selectRequest, "SEARCH r USING PRIMARY KEY (id=?)"},
	"held":                 {selectHeld, "SEARCH request USING INDEX request_owned (worker=?)"},
	"share":                {selectHoldings, "SEARCH s USING PRIMARY KEY (target=?)"},
	"expire":               {expireRequests, "SEARCH request USING INDEX request_deadline (deadline>? AND deadline<?)"},
	"promote":              {promoteRequests, "SEARCH request USING COVERING INDEX request_waiting (not_before<?)"},
	"reap":                 {reapRequests, "SEARCH r USING INDEX request_owned (worker=?)"},
	"unpark":               {endParks, "SEARCH lane USING COVERING INDEX lane_due (parked_until<?)"},
	"heal":                 {selectDrift, "SEARCH r USING INDEX request_lane (lane=?)"},
	"ended":                {selectEnded, "SEARCH request USING INDEX request_finished (finished<?)"},
	"old keys":             {removeIdempotency, "SEARCH idempotency USING COVERING INDEX idempotency_created (created<?)"},
	"get key":              {selectKV, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key=?)"},
	"list keys":            {listKV + pageKV, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key>?)"},
	"list a range":         {listKV + boundKV + pageKV, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=? AND key>? AND key<?)"},
	"count keys":           {countKV, "SEARCH kv USING INDEX sqlite_autoindex_kv_1 (tenant=? AND plugin=?)"},
	"idempotency key":      {selectKey, "SEARCH i USING PRIMARY KEY (tenant=? AND key=?)"},
	"join":                 {selectJoined, "SEARCH c USING INDEX sqlite_autoindex_conversation_1 (id=?)"},
	"item":                 {selectItem, "SEARCH i USING INDEX sqlite_autoindex_conversation_item_2 (conversation=? AND id=?)"},
	"newest items":         {selectNewest, "SEARCH conversation_item USING INDEX sqlite_autoindex_conversation_item_1 (conversation=? AND seq<?)"},
	"oldest items":         {selectOldest, "SEARCH conversation_item USING INDEX sqlite_autoindex_conversation_item_1 (conversation=? AND seq>?)"},
	"expired keys":         {removeExpiredKV, "SEARCH kv USING COVERING INDEX kv_expired (expires_at<?)"},
}

// few are the steps that read all of something small: a claim's workers, one
// row, or what an inner statement limits.
var few = strings.NewReplacer("SCAN CONSTANT ROW", "", "SCAN (subquery", "", "SCAN worker", "", "SCAN w\n", "\n")

// TestHotStatementsUseIndexes: nothing on the request path reads all requests or
// all lanes, or sorts what waits, whatever statistics there are.
func TestHotStatementsUseIndexes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	check := func(when string) {
		opened, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		d := opened.(*driver)
		for name, c := range hot {
			got := d.plan(t, c.query)
			if rest := few.Replace(got); !strings.Contains(got, c.want) || strings.Contains(rest, "SCAN") || strings.Contains(rest, "TEMP B-TREE") {
				t.Errorf("%s, %s: got\n%swant %s, and nothing scanned or sorted", name, when, got, c.want)
			}
		}
		if when == "fresh" {
			d.fillOne(t)
			if _, err := d.writer.ExecContext(t.Context(), "analyze"); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("fresh")
	check("with the statistics of one request")
}

// plan returns the steps of a statement's plan, a line each.
func (d *driver) plan(t *testing.T, query string) string {
	t.Helper()
	args := strings.Count(query, "?")
	for n := 1; n <= 20; n++ {
		if strings.Contains(query, fmt.Sprint("?", n)) {
			args = n
		}
	}
	rows, err := d.writer.QueryContext(t.Context(), "explain query plan "+query, make([]any, args)...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var b strings.Builder
	err = drain(rows, func(scan scan) error {
		var id, parent, unused int
		var step string
		err := scan(&id, &parent, &unused, &step)
		fmt.Fprintln(&b, step)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return b.String()
}

// fillOne leaves one row in about each table and index.
func (d *driver) fillOne(t *testing.T) {
	t.Helper()
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour, Targets: []store.TargetUse{{Target: "a/b", Limit: 1, Want: 1}}})
	if err == nil {
		err = d.SetLimits(t.Context(), store.Limits{Lanes: []queue.Lane{{Tenant: "t", Model: "m", Weight: 1, Cap: 9}}, Gates: []queue.Gate{{Tenant: "t", Cap: 9}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []queue.New{{DeadlineIn: time.Hour}, {}, {Worker: p.Worker}} {
		n.ID, n.Tenant, n.Model, n.Path = queue.NewID(), "t", "m", "/p"
		if r, err := d.Write(t.Context(), []store.Write{{Insert: &n}}); err != nil || r[0] != nil {
			t.Fatal(r, err)
		}
	}
	if claims, err := d.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"m"}, N: 1}); err != nil || len(claims) != 1 {
		t.Fatal(claims, err)
	}
}
