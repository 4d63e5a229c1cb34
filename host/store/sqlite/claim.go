package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Claim serves the ready models in turn, beginning with a random one, and gives
// each its share of what is left.
func (d *driver) Claim(ctx context.Context, c store.ClaimRequest) (claims []queue.Claim, err error) {
	err = d.update(ctx, "claim", func(t *tx) error {
		if alive, err := t.alive(c.Worker); err != nil || !alive {
			return lostWorker(c.Worker, err)
		}
		ready, err := t.readyModels(c.Models)
		if err != nil {
			return err
		}
		for {
			again := false
			for i, model := range ready {
				left := c.N - len(claims)
				if left == 0 {
					return nil
				}
				got, slept, err := t.claimModel(model, share(left, len(ready)-i), c.Worker)
				if err != nil {
					return err
				}
				claims = append(claims, got...)
				again = again || slept || len(got) > 0
			}
			if !again {
				return nil
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// share divides n by parts and rounds up.
func share(n, parts int) int { return (n + parts - 1) / parts }

func lostWorker(worker int64, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("worker %d: %w", worker, queue.ErrLeaseLost)
}

func (t *tx) alive(worker int64) (alive bool, err error) {
	err = t.one(`select exists (select 1 from worker where id = ? and reaped = 0)`, []any{worker}, &alive)
	return alive, err
}

func (t *tx) readyModels(models []string) ([]string, error) {
	var ready []string
	for _, i := range rand.Perm(len(models)) {
		var is bool
		err := t.one(`select exists (select 1 from lane where model = ? and ready = 1 and parked = 0)`, []any{models[i]}, &is)
		if err != nil {
			return nil, err
		}
		if is {
			ready = append(ready, models[i])
		}
	}
	return ready, nil
}

// room is a lane that a claim picked.
type room struct {
	id      int64
	tenant  string
	weight  float64
	running int
	limit   sql.NullInt64
}

const pickLanes = `
select id, tenant, weight, running, cap from lane
where model = ? and ready = 1 and parked = 0
order by vtime, id
limit ?`

// claimModel picks the lanes with the least virtual time and takes a quantum
// from each, by weight and never beyond its cap. slept says that one of them
// had nothing but what the sweep ends: another lane may be next.
func (t *tx) claimModel(model string, n int, worker int64) (claims []queue.Claim, slept bool, err error) {
	var rooms []room
	var total float64
	err = t.each(pickLanes, []any{model, n}, func(scan scan) error {
		var r room
		if err := scan(&r.id, &r.tenant, &r.weight, &r.running, &r.limit); err != nil {
			return err
		}
		rooms = append(rooms, r)
		total += r.weight
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	for _, r := range rooms {
		left := n - len(claims)
		if left == 0 {
			break // the lanes left over were not charged either
		}
		quantum := min(left, int(math.Ceil(float64(n)*r.weight/total)))
		if r.limit.Valid {
			quantum = min(quantum, int(r.limit.Int64)-r.running)
		}
		got, ready, err := t.take(r, max(0, quantum), worker)
		if err != nil {
			return nil, false, err
		}
		slept = slept || (len(got) == 0 && !ready)
		for i := range got {
			got[i].Tenant, got[i].Model = r.tenant, model
		}
		claims = append(claims, got...)
	}
	return claims, slept, nil
}

// takeRows leaves those past their deadline to the sweep.
const takeRows = `
select id from request
where lane = ? and state = 0 and (deadline is null or deadline > ?)
order by ord, id
limit ?`

// chargeLane does not see those rows either: a lane that has no others stops to
// compete, so that it is not picked again in place of one that has.
const chargeLane = `
update lane set
	vtime = vtime + ?2 / weight,
	running = iif(cap is null, 0, running + ?2),
	parked = (coalesce(running + ?2 >= cap, 0) or coalesce(parked_until > ?3, 0)),
	head_deadline = (select ord from request where lane = ?1 and state = 0 and (deadline is null or deadline > ?3) order by ord, id limit 1),
	ready = exists (select 1 from request where lane = ?1 and state = 0 and (deadline is null or deadline > ?3))
where id = ?1
returning ready`

// take returns what it took, and whether the lane has more.
func (t *tx) take(r room, quantum int, worker int64) (claims []queue.Claim, ready bool, err error) {
	var ids []queue.ID
	err = t.each(takeRows, []any{r.id, t.now, quantum}, func(scan scan) error {
		var id idColumn
		if err := scan(&id); err != nil {
			return err
		}
		ids = append(ids, queue.ID(id))
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		c, err := t.claimRow(id, worker)
		if err != nil {
			return nil, false, err
		}
		claims = append(claims, c)
	}
	err = t.one(chargeLane, []any{r.id, len(claims), t.now}, &ready)
	return claims, ready, err
}

const claimRequest = `
update request set state = 1, attempt = attempt + 1, worker = ?2, not_before = null
where id = ?1 and state = 0
returning path, tier, stream, background, store, realtime, attempt, state, failures, reaps, created, deadline,
	(select data from body where request = ?1)`

func (t *tx) claimRow(id queue.ID, worker int64) (queue.Claim, error) {
	c := queue.Claim{ID: id}
	var created, deadline sql.NullInt64
	err := t.one(claimRequest, []any{id[:], worker}, &c.Path, &c.Tier, &c.Stream, &c.Background, &c.Store, &c.Realtime,
		&c.Attempt, &c.State, &c.Failures, &c.Reaps, &created, &deadline, &c.Body)
	if err != nil {
		return c, err
	}
	c.Created = at(created)
	c.Age = time.Duration(t.now-created.Int64) * time.Millisecond
	if deadline.Valid {
		c.Remaining = time.Duration(deadline.Int64-t.now) * time.Millisecond
	}
	return c, nil
}

// idColumn scans an id.
type idColumn queue.ID

// Scan copies a blob of 16 bytes.
func (id *idColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(id) {
		return fmt.Errorf("id of %T is not 16 bytes", v)
	}
	copy(id[:], b)
	return nil
}
