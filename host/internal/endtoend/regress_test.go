package endtoend_test

import (
	"context"
	"database/sql"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/fleet"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// The tests named after a U are of defects that another system of this kind
// had, and that need whole hosts to be seen.

// proxied starts a proxy before the rig's database and returns the URL through
// it.
func (r *rig) proxied() (*fleet.Proxy, string) {
	r.Helper()
	proxy, err := fleet.NewProxy(r.storeURL)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(proxy.Close)
	url, err := proxy.URL(r.storeURL)
	if err != nil {
		r.Fatal(err)
	}
	return proxy, url
}

// sitesOf names who made the calls, in order.
func sitesOf(calls []call) string {
	var sites []string
	for _, c := range calls {
		sites = append(sites, c.site)
	}
	return strings.Join(sites, " ")
}

// holdClaim makes the claim of a request wait, in the database, for whoever
// holds the lock.
const holdClaim = `
create function hold_claim() returns trigger language plpgsql as $$ begin
	perform pg_advisory_xact_lock_shared(4711);
	return new;
end $$;
create trigger hold_claim before update on request for each row
	when (old.state = 0 and new.worker is not null) execute function hold_claim();
select pg_advisory_lock(4711)`

// TestU5FencedOutStartNeverDispatches lets a host learn of its claim only when
// the request is no longer its own: it must not call the upstream.
func TestU5FencedOutStartNeverDispatches(t *testing.T) {
	t.Run("reaped", func(t *testing.T) {
		r, proxy, first, id, rec := claimedUnknown(t, 2*time.Second)
		second := r.startAt(site{name: "second"})
		r.eventually("another host does the work", func() bool { return r.record(id).State == queue.Completed })
		proxy.Release()
		r.eventually("the first host is back", func() bool {
			status, _ := first.get("/readyz")
			return status == http.StatusOK && strings.Contains(first.logs.String(), "given up for dead")
		})
		// What it does now comes after what it did with the claim.
		second.signal(syscall.SIGSTOP)
		if v := first.await(first.background("and now")); v["status"] != "completed" {
			t.Errorf("the next request of the first host is %v", v["status"])
		}
		if got := sitesOf(rec.of(id)); got != "second" {
			t.Errorf("called by %q; want second alone", got)
		}
		if found := r.record(id); found.Attempt != 2 || found.Reaps != 1 {
			t.Errorf("attempt %d, reaps %d; want 2, 1", found.Attempt, found.Reaps)
		}
	})
	t.Run("canceled", func(t *testing.T) { // the host still has its lease: what it begins, it breaks off
		r, proxy, _, id, rec := claimedUnknown(t, 20*time.Second)
		key, err := queue.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, did, err := r.writer().Cancel(t.Context(), "", key, ""); err != nil || !did {
			t.Fatalf("cancel: %v, %v", did, err)
		}
		proxy.Release()
		r.eventually("the first host lets go", func() bool { return r.record(id).Worker == 0 })
		for i, c := range rec.of(id) {
			if i > 0 || c.whole {
				t.Errorf("%+v: want at most one call, broken off", c)
			}
		}
		if found := r.record(id); found.State != queue.Canceled || found.Result != nil || len(found.Usage) > 0 {
			t.Errorf("%s, result %v, usage %v; want canceled and nothing more", found.State, found.Result, found.Usage)
		}
	})
}

// writer opens the rig's database for writing, as one more host would.
func (r *rig) writer() store.Driver {
	r.Helper()
	d, err := postgres.Open(context.Background(), r.storeURL, postgres.Options{})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := d.Close(); err != nil {
			r.Error(err)
		}
	})
	return d
}

// claimedUnknown starts a host and has it claim a request without learning that
// it did, until the proxy is released. The request is one upstream call and no
// loop: nothing but its start is written before the call.
func claimedUnknown(t *testing.T, lease time.Duration) (r *rig, proxy *fleet.Proxy, first *host, id string, rec *recorder) {
	rec = &recorder{}
	r = newRig(t, testdb.Postgres(t), rec.script(func(_ int, req demo.Request) demo.Turn {
		turn := demo.Turn{Text: "once"}
		if strings.HasSuffix(req.Header.Get("Authorization"), "first") && strings.Contains(string(req.Body), "question 1") {
			turn.Gate = make(chan struct{})
		}
		return turn
	}))
	r.lease = lease.String()
	proxy, through := r.proxied()
	first = r.startAt(site{name: "first", store: through})
	db, err := sql.Open("postgres", r.storeURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // the lock is the connection's
	if _, err := db.Exec(holdClaim); err != nil {
		t.Fatal(err)
	}
	n := queue.New{
		ID: queue.NewID(), Tenant: "default", Model: "m", Path: completions, Tier: "default",
		Background: true, Store: true, Body: shape{path: completions}.body("m", 1),
	}
	if errs, err := r.writer().Write(t.Context(), []store.Write{{Insert: &n}}); err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
	id = n.ID.String()
	r.eventually("the host claims it", func() bool {
		var n int
		if err := db.QueryRow("select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and not granted").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
	proxy.HoldAnswers()
	if _, err := db.Exec("select pg_advisory_unlock(4711)"); err != nil {
		t.Fatal(err)
	}
	r.eventually("it has claimed it", func() bool { return r.record(id).State.Owned() })
	return r, proxy, first, id, rec
}

// TestU8ResultSurvivesOutage takes the database away while the upstream
// answers, for longer than a lease: the answer is kept and stored later.
func TestU8ResultSurvivesOutage(t *testing.T) {
	server := testdb.NewServer(t)
	for _, end := range []struct {
		how string
		do  func()
	}{{"stopped", server.Stop}, {"crashed", server.Kill}} {
		t.Run(end.how, func(t *testing.T) {
			began, gate, rec := make(chan struct{}, 9), make(chan struct{}), &recorder{}
			r := newRig(t, server.URL(), rec.script(func(int, demo.Request) demo.Turn {
				began <- struct{}{}
				return demo.Turn{Text: "kept", Gate: gate}
			}))
			h := r.start()
			defer h.kill()
			id := h.background("hello")
			<-began
			end.do()
			close(gate)
			r.eventually("the upstream has answered", func() bool { return rec.of(id)[0].whole })
			wait(3 * time.Second)
			server.Start()
			v := h.await(id)
			if v["status"] != "completed" || text(v) != "kept" {
				t.Errorf("status %v, text %q; want the answer", v["status"], text(v))
			}
			found := r.record(id)
			if n := len(rec.of(id)); n != 1 || found.Attempt != 1 || found.Reaps != 0 || len(found.Usage) != 1 {
				t.Errorf("%d calls, attempt %d, reaps %d, %d rows of usage; want 1, 1, 0, 1", n, found.Attempt, found.Reaps, len(found.Usage))
			}
			checkEvents(t, found)
		})
	}
}

// TestU10ReapsWithFullSlots kills one of two hosts that have a slot each and use
// it: the other one, which can take nothing, reaps all the same.
func TestU10ReapsWithFullSlots(t *testing.T) {
	gate, rec := make(chan struct{}), &recorder{}
	r := newRig(t, testdb.Postgres(t), rec.script(func(int, demo.Request) demo.Turn { return demo.Turn{Text: "done", Gate: gate} }))
	hosts := map[string]*host{
		"a": r.startAt(site{name: "a", slots: 1}),
		"b": r.startAt(site{name: "b", slots: 1}),
	}
	ids := []string{hosts["a"].background("one"), hosts["a"].background("two")}
	r.eventually("both run", func() bool { return len(rec.all()) == 2 })
	dead, alive, lost := hosts["a"], hosts["b"], ids[0]
	if rec.of(lost)[0].site == "b" {
		dead, alive = alive, dead
	}
	dead.kill()
	r.eventually("the dead host's request is reaped", func() bool { return r.record(lost).Reaps == 1 })
	if found := r.record(ids[1]); found.State != queue.Processing {
		t.Fatalf("the other request is %s; it was to fill the only slot", found.State)
	}
	if n := len(rec.all()); n != 2 {
		t.Errorf("%d upstream calls; want 2 while no slot is free", n)
	}
	close(gate)
	for _, id := range ids {
		if v := alive.await(id); v["status"] != "completed" {
			t.Errorf("%s: %v", id, v["status"])
		}
	}
}

// TestU17Drain stops a host that has work: it ends what runs, takes nothing
// more, neither from clients nor from the queue, and tells clients when to come
// again.
func TestU17Drain(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		gate, rec := make(chan struct{}), &recorder{}
		r := newRig(t, url, rec.script(func(int, demo.Request) demo.Turn { return demo.Turn{Text: "done", Gate: gate} }))
		r.drain = "30s"
		h := r.startAt(site{slots: 1})
		runs := h.background("runs")
		r.eventually("it runs", func() bool { return len(rec.all()) == 1 })
		queued := h.background("queued")
		h.signal(syscall.SIGTERM)
		r.eventually("new requests are refused", func() bool {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, h.url+responses, strings.NewReader(`{"model":"m","input":"late","background":true}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatalf("a host that drains hung up: %v", err)
			}
			res.Body.Close()
			if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
				t.Error("refused without Retry-After")
			}
			return res.StatusCode == http.StatusServiceUnavailable
		})
		close(gate)
		if err := <-h.done; err != nil {
			t.Errorf("the host ended with %v", err)
		}
		if found := r.record(runs); found.State != queue.Completed || found.Attempt != 1 {
			t.Errorf("what ran is %s at attempt %d; want completed at 1", found.State, found.Attempt)
		}
		if found := r.record(queued); found.State != queue.Pending || found.Attempt != 0 {
			t.Errorf("what was queued is %s at attempt %d; want pending at 0", found.State, found.Attempt)
		}
		if v := r.next().await(queued); v["status"] != "completed" {
			t.Errorf("what was queued is %v in the end", v["status"])
		}
	})
}

// TestLateResultKeepsUsage cuts a host off while the upstream answers it, until
// another one has done the work again: the late result is dropped, and what it
// used is kept for the bill.
func TestLateResultKeepsUsage(t *testing.T) {
	began, gate, rec := make(chan struct{}, 9), make(chan struct{}), &recorder{}
	r := newRig(t, testdb.Postgres(t), rec.script(func(n int, _ demo.Request) demo.Turn {
		if n == 0 {
			began <- struct{}{}
			return demo.Turn{Text: "late", Gate: gate}
		}
		return demo.Turn{Text: "in time"}
	}))
	proxy, through := r.proxied()
	first := r.startAt(site{name: "first", store: through})
	id := first.background("hello")
	<-began
	proxy.Hold()
	close(gate)
	second := r.startAt(site{name: "second"})
	if v := second.await(id); v["status"] != "completed" || text(v) != "in time" {
		t.Errorf("status %v, text %q; want the second host's answer", v["status"], text(v))
	}
	before := r.record(id)
	proxy.Release()
	r.eventually("what the late result used is stored", func() bool { return len(r.record(id).Usage) == 2 })
	after := r.record(id)
	if got := sitesOf(rec.of(id)); got != "first second" {
		t.Errorf("called by %q; want first second", got)
	}
	if after.State != queue.Completed || after.Attempt != before.Attempt || len(after.Events) != len(before.Events) || !strings.Contains(string(after.Result.Body), "in time") {
		t.Errorf("after the late result: %s, attempt %d, %d events, %s", after.State, after.Attempt, len(after.Events), after.Result.Body)
	}
	checkEvents(t, after)
}
