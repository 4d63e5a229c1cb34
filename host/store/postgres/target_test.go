package postgres_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

func beat(t *testing.T, d store.Driver, b store.Beat) store.Pulse {
	t.Helper()
	p, err := d.Heartbeat(t.Context(), b)
	if err != nil {
		t.Fatalf("Heartbeat: %v", err)
	}
	return p
}

func connect(t *testing.T, u string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	return c
}

// exec runs statements that take no parameters.
func exec(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestSharesNeverExceedTheLimit has hosts beat at once, some of which name the
// targets in another order, while another session adds the shares up.
func TestSharesNeverExceedTheLimit(t *testing.T) {
	u := testdb.Postgres(t)
	const limit, hosts, beats = 7, 6, 60
	targets := []string{"a/x", "b/y", "c/z"}
	var wg sync.WaitGroup
	for n := range hosts {
		d := open(t, u)
		defer d.Close()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			var worker int64
			held := map[string]int{}
			for i := range beats {
				b := store.Beat{Worker: worker, Lease: time.Hour, Leave: i == beats/2 || i == beats-1}
				for _, j := range r.Perm(len(targets)) {
					have := held[targets[j]]
					b.Targets = append(b.Targets, store.TargetUse{Target: targets[j], Limit: limit, Want: r.IntN(9), Keep: r.IntN(have + 1)})
				}
				p, err := d.Heartbeat(t.Context(), b)
				if err != nil || p.Lost || len(p.Targets) != len(targets) {
					t.Errorf("Heartbeat: got %+v, %v", p, err)
					return
				}
				for k, s := range p.Targets {
					if use := b.Targets[k]; s.Target != use.Target || s.Slots > limit {
						t.Errorf("got %+v for %+v", s, use)
					}
					held[s.Target] = s.Slots
				}
				if worker = p.Worker; b.Leave {
					worker = 0
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	c := connect(t, u)
	most, samples := 0, 0
	for running := true; running; samples++ {
		select {
		case <-done:
			running = false
		default:
		}
		var n int
		if err := c.QueryRow(t.Context(), `select coalesce(max(n), 0)::int from (select sum(slots) as n from target_share group by target) s`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
	}
	if most != limit {
		t.Errorf("at most %d slots were given out in %d samples, want %d", most, samples, limit)
	}
	if n := one[int](t, u, `select count(*)::int from target_share`); n != 0 {
		t.Errorf("%d shares are left of workers that left", n)
	}
}

// TestDeadWorkersSharesComeBack: until it is reaped a worker has its share,
// whatever its lease.
func TestDeadWorkersSharesComeBack(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	all := []store.TargetUse{{Target: "a/x", Limit: 4, Want: 9}}
	dead := beat(t, d, store.Beat{Lease: -time.Second, Targets: all})
	live := beat(t, d, store.Beat{Lease: time.Hour, Targets: all})
	if dead.Targets[0].Slots != 4 || live.Targets[0].Slots != 0 {
		t.Fatalf("got %d and %d, want 4 and 0", dead.Targets[0].Slots, live.Targets[0].Slots)
	}
	exec(t, connect(t, u), `update worker set reaped = true where lease_until < now()`)
	if p := beat(t, d, store.Beat{Worker: live.Worker, Lease: time.Hour, Targets: all}); p.Targets[0].Slots != 4 {
		t.Errorf("got %d, want the share of the worker that was reaped", p.Targets[0].Slots)
	}
	if p := beat(t, d, store.Beat{Worker: dead.Worker, Lease: time.Hour, Targets: all}); !p.Lost || len(p.Targets) != 0 {
		t.Errorf("a reaped worker got %+v", p)
	}
}

// TestReapingDropsShares keeps rows of dead workers from piling up.
func TestReapingDropsShares(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	beat(t, d, store.Beat{Lease: -time.Second, Targets: []store.TargetUse{{Target: "a/x", Limit: 4, Want: 9}}})
	if _, err := d.Sweep(t.Context(), store.SweepRequest{Reap: true, MaxReaps: 1}); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, u, `select count(*)::int from target_share`); n != 0 {
		t.Errorf("%d shares are left", n)
	}
}

// TestTargetWithoutLimitCoolsDown: the longest cooldown counts, for all.
func TestTargetWithoutLimitCoolsDown(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	use := func(limit int, cooldown time.Duration) []store.TargetUse {
		return []store.TargetUse{{Target: "a/x", Limit: limit, Want: 3, Cooldown: cooldown}}
	}
	w := beat(t, d, store.Beat{Lease: time.Hour, Targets: use(2, time.Minute)}).Worker
	beat(t, d, store.Beat{Lease: time.Hour, Targets: use(0, time.Second)})
	p := beat(t, d, store.Beat{Worker: w, Lease: time.Hour, Targets: use(0, 0)})
	if left := p.Targets[0].Cooldown; left < 50*time.Second || left > time.Minute || p.Targets[0].Slots != 0 {
		t.Errorf("got %+v, want a minute less what passed and no slots", p.Targets[0])
	}
	if n := one[int](t, u, `select count(*)::int from target_share`); n != 0 {
		t.Errorf("%d shares of a target without limit are left", n)
	}
}

// TestStoppedHostDelaysBeatsLittle: a host that stops with a target locked keeps
// others waiting for much less than a lease.
func TestStoppedHostDelaysBeatsLittle(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	targets := []store.TargetUse{{Target: "a/x", Limit: 4, Want: 9}}
	w := beat(t, d, store.Beat{Lease: time.Hour, Targets: targets}).Worker
	exec(t, connect(t, u), `begin`, postgres.GuardBeat, `select from target for no key update`)
	begin := time.Now()
	p := beat(t, d, store.Beat{Worker: w, Lease: time.Hour, Targets: targets})
	if took := time.Since(begin); took > 8*time.Second || p.Targets[0].Slots != 4 {
		t.Errorf("took %s, got %+v", took, p)
	}
}
