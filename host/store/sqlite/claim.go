package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const (
	// askAgain bounds how often a claim asks the models again, since nobody
	// writes while it does.
	askAgain = 32
	// urgentRows is the most that a claim by deadline takes from one lane.
	urgentRows = 5
)

// claiming is one Claim under way.
type claiming struct {
	*tx
	store.ClaimRequest
	claims []queue.Claim
	// looked is, by model, up to where the lanes of models that can only
	// escalate were looked at.
	looked map[string]position
}

// Claim serves the ready models in turn, beginning with a random one, and gives
// each its share of what is left: first of what goes by deadline, then of all.
func (d *driver) Claim(ctx context.Context, r store.ClaimRequest) (claims []queue.Claim, err error) {
	r = r.WithDefaults()
	err = d.update(ctx, "claim", func(t *tx) error {
		if alive, err := t.alive(r.Worker); err != nil || !alive {
			return lostWorker(r.Worker, err)
		}
		c := &claiming{tx: t, ClaimRequest: r, looked: map[string]position{}}
		ready, err := c.readyModels()
		if err == nil {
			err = c.rounds(ready, min(r.Urgent, r.N), c.urgent)
		}
		if err == nil {
			err = c.rounds(ready, r.N, c.fair)
		}
		claims = c.claims
		return err
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// rounds asks the models in turn until there are n claims or none changes
// anything any more.
func (c *claiming) rounds(models []string, n int, claim func(model string, n int) (changed bool, err error)) error {
	again := true
	for round := 0; again && round < askAgain; round++ {
		again = false
		for i, model := range models {
			left := n - len(c.claims)
			if left <= 0 {
				return nil
			}
			changed, err := claim(model, share(left, len(models)-i))
			if err != nil {
				return err
			}
			again = again || changed
		}
	}
	return nil
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

const probeModel = `select exists (select 1 from lane where model = ? and ready = 1 and parked = 0)`

func (c *claiming) readyModels() ([]string, error) {
	var ready []string
	for _, i := range rand.Perm(len(c.Models)) {
		var is bool
		if err := c.one(probeModel, []any{c.Models[i]}, &is); err != nil {
			return nil, err
		}
		if is {
			ready = append(ready, c.Models[i])
		}
	}
	return ready, nil
}

// room is a lane that a claim picked.
type room struct {
	slots
	id     int64
	tenant string
	model  string
	weight float64
	vtime  float64
	head   int64 // nothing claimable is before it
}

const roomColumns = `id, tenant, weight, vtime, running, realtime, cap, reserve_realtime, coalesce(head_deadline, -9223372036854775808)`

// pickFair names its index: to SQLite the one on all lanes, idle ones too, looks
// as good. A lane that is new, and so level with those in step, comes before them.
const pickFair = `
select ` + roomColumns + ` from lane indexed by lane_fair
where model = ? and ready = 1 and parked = 0
order by vtime, id desc
limit ?`

const pickUrgent = `
select ` + roomColumns + ` from lane indexed by lane_edf
where model = ? and ready = 1 and parked = 0 and head_deadline < ?
order by head_deadline, id
limit ?`

func (c *claiming) pick(model, query string, args ...any) (rooms []room, err error) {
	err = c.each(query, append([]any{model}, args...), func(scan scan) error {
		r := room{model: model}
		err := scan(&r.id, &r.tenant, &r.weight, &r.vtime, &r.running, &r.realtime, &r.limit, &r.reserve, &r.head)
		rooms = append(rooms, r)
		return err
	})
	return rooms, err
}

// fair takes from the lanes with the least virtual time. changed also says that
// one of them had nothing, and was told so.
func (c *claiming) fair(model string, n int) (changed bool, err error) {
	if slices.Contains(c.OnlyEscalate, model) {
		return false, c.onlyEscalate(model, n)
	}
	rooms, err := c.pick(model, pickFair, n)
	if err != nil {
		return false, err
	}
	for i, quantum := range allot(rooms, n) {
		if quantum == 0 && rooms[i].queued() > 0 {
			continue
		}
		if _, err := c.take(&rooms[i], look{n: quantum}); err != nil {
			return false, err
		}
	}
	return len(rooms) > 0, nil
}

// allot deals n requests to lanes as if they were claimed one at a time, each
// from the lane that has the least virtual time by then.
func allot(rooms []room, n int) []int {
	got := make([]int, len(rooms))
	for range n {
		next, least := -1, 0.0
		for i, r := range rooms {
			if got[i] == r.queued() {
				continue
			}
			if tag := r.vtime + float64(got[i])/r.weight; next < 0 || tag < least {
				next, least = i, tag
			}
		}
		if next < 0 {
			break
		}
		got[next]++
	}
	return got
}

// urgent takes from the lanes whose heads are due first, a few from each.
func (c *claiming) urgent(model string, n int) (changed bool, err error) {
	if slices.Contains(c.OnlyEscalate, model) {
		return false, nil
	}
	due := c.now + c.Window.Milliseconds()
	rooms, err := c.pick(model, pickUrgent, due, n)
	if err != nil {
		return false, err
	}
	left := n
	for i := range rooms {
		if left == 0 {
			break
		}
		got, err := c.take(&rooms[i], look{n: min(left, urgentRows), due: due})
		if err != nil {
			return false, err
		}
		left -= got
	}
	return len(rooms) > 0, nil
}

// position is a place in the order of lanes by their heads.
type position struct{ head, lane int64 }

// pickEscalating goes on from where the claim has looked already, and leaves out
// lanes without a deadline that is near.
const pickEscalating = `
select ` + roomColumns + ` from lane indexed by lane_edf
where model = ?1 and ready = 1 and parked = 0 and head_deadline < ?2 and (head_deadline, id) > (?3, ?4)
	and exists (
		select 1 from request r indexed by request_near
		where r.lane = lane.id and r.state = 0 and r.deadline > ?6 and r.deadline < ?2)
order by head_deadline, id
limit ?5`

// mostLooks bounds how many lanes one claim looks at: the other model may have
// no slot for them. The next claim goes on behind them.
const mostLooks = 256

// onlyEscalate takes what another model serves from lanes whose own cannot.
// Each lane is looked at once a claim.
func (c *claiming) onlyEscalate(model string, n int) error {
	due := c.now + c.Escalate[model].Within.Milliseconds()
	from, ok := c.looked[model]
	if !ok {
		from, ok = c.d.looked[model]
	}
	if !ok {
		from = position{anyOrder, 0}
	}
	delete(c.d.looked, model)
	for looks := 0; n > 0; {
		if looks == mostLooks {
			c.d.looked[model] = from
			return nil
		}
		rooms, err := c.pick(model, pickEscalating, due, from.head, from.lane, min(n, mostLooks-looks), c.now)
		if err != nil || len(rooms) == 0 {
			return err
		}
		for i := range rooms {
			if n == 0 {
				return nil
			}
			from = position{rooms[i].head, rooms[i].id}
			c.looked[model] = from
			looks++
			got, err := c.take(&rooms[i], look{n: n, due: due, only: true})
			if err != nil {
				return err
			}
			n -= got
		}
	}
	return nil
}
