package endtoend_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
)

// TestTwoHosts sends 2,000 requests through the loop of two hosts on one
// database, each with a tool call, in a lane with a cap.
func TestTwoHosts(t *testing.T) {
	const total, most = 2000, 40
	r := newRig(t, testdb.Postgres(t), func(_ int, req demo.Request) demo.Turn {
		if outs := toolOutputs(req.Body); len(outs) > 0 {
			return demo.Turn{Text: outs[0]}
		}
		return demo.Turn{Calls: []demo.Call{{ID: "c1", Name: "wait_once", Arguments: "{}"}}}
	})
	r.cap = most
	hosts := []*host{r.start(), r.start()}
	stop := r.watchLanes(most)
	ids := make([]string, total)
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := c; i < total; i += 16 {
				ids[i] = hosts[i%2].background(fmt.Sprintf("request %d", i))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, id := range ids {
		if seen[id] {
			t.Fatalf("id %s was given out twice", id)
		}
		seen[id] = true
		if v := hosts[i%2].await(id); v["status"] != "completed" || !strings.Contains(text(v), `"attempt":1`) {
			t.Errorf("request %d: %v, text %q", i, v["status"], text(v))
		}
	}
	if busiest := stop(); busiest == 0 {
		t.Error("no sample saw a request run: the cap was not tried")
	}
	for _, id := range ids {
		rec := r.record(id)
		if rec.State != queue.Completed || rec.Attempt != 1 || len(rec.Usage) != 2 {
			t.Errorf("%s: %s at attempt %d with %d usage rows; want completed at 1 with 2", id, rec.State, rec.Attempt, len(rec.Usage))
		}
		for _, s := range rec.Steps {
			if s.Tries != 1 {
				t.Errorf("%s: step %s was tried %d times", id, s.Key(), s.Tries)
			}
		}
		checkEvents(t, rec)
	}
	stats, err := r.db().Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := stats.States[queue.Completed]; n != total || len(stats.States) != 1 {
		t.Errorf("states %v; want %d completed and nothing else", stats.States, total)
	}
	for _, l := range stats.Lanes {
		if l.Cap != most || l.Owned != 0 || l.Pending != 0 || l.Running != 0 {
			t.Errorf("lane %s/%s: cap %d, owned %d, pending %d, running %d; want %d and nothing left", l.Tenant, l.Model, l.Cap, l.Owned, l.Pending, l.Running, most)
		}
	}
	if n := len(r.upstream.Requests()); n != 2*total {
		t.Errorf("%d upstream calls; want %d", n, 2*total)
	}
}

// watchLanes samples the lanes until stop: in each sample the counter must
// equal the rows that it counts, and neither may exceed the cap. stop returns
// the most that was seen running.
func (r *rig) watchLanes(most int) (stop func() int) {
	db := r.db()
	quit, done := make(chan struct{}), make(chan int, 1)
	go func() {
		busiest := 0
		defer func() { done <- busiest }()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			stats, err := db.Stats(context.Background())
			if err != nil {
				r.Errorf("stats: %v", err)
				return
			}
			for _, l := range stats.Lanes {
				busiest = max(busiest, l.Owned)
				if l.Running != l.Owned || l.Owned > most {
					r.Errorf("lane %s/%s: counter %d, rows %d, cap %d", l.Tenant, l.Model, l.Running, l.Owned, most)
				}
			}
		}
	}()
	return func() int {
		close(quit)
		return <-done
	}
}

// TestTwoHostsKeepEveryNote adds notes through two hosts at once, several in
// each response: what a plugin reads and then writes must not lose what
// another call wrote in between.
func TestTwoHostsKeepEveryNote(t *testing.T) {
	const responses, each = 12, 3
	r := newRig(t, testdb.Postgres(t), func(_ int, req demo.Request) demo.Turn {
		if outs := toolOutputs(req.Body); len(outs) > 0 {
			return demo.Turn{Text: strings.Join(outs, "\n")}
		}
		if strings.Contains(string(req.Body), "list them") {
			return demo.Turn{Calls: []demo.Call{{ID: "c0", Name: "notes", Arguments: `{"op":"list"}`}}}
		}
		var turn demo.Turn
		for i := range each {
			turn.Calls = append(turn.Calls, demo.Call{
				ID: fmt.Sprintf("c%d", i), Name: "notes", Arguments: `{"op":"add","text":"a note"}`,
			})
		}
		return turn
	})
	hosts := []*host{r.start(), r.start()}
	var wg sync.WaitGroup
	for i := range responses {
		wg.Go(func() {
			h := hosts[i%2]
			if v := h.await(h.background("add some")); v["status"] != "completed" {
				t.Errorf("response %d: %v", i, v["status"])
			}
		})
	}
	wg.Wait()
	v := hosts[0].await(hosts[0].background("list them"))
	if n := strings.Count(text(v), "a note"); n != responses*each {
		t.Errorf("%d notes kept; want %d", n, responses*each)
	}
}
