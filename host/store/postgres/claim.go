package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// guardLong bounds what a transaction may hold up when this host stops in the
// middle of it. It also keeps sequential scans out of plans: they are cached for
// as long as a connection lasts, and one made while a table was almost empty
// reads all of it ever after. It is set for the transaction only.
const guardLong = `
select set_config('idle_in_transaction_session_timeout', '10s', true), set_config('statement_timeout', '25s', true),
	set_config('enable_seqscan', 'off', true)`

// shareCaps is taken before anything that changes how many requests of a lane
// run, so that no cap is set meanwhile.
const shareCaps = `select pg_advisory_xact_lock_shared($1)`

// probeModels finds the models that have something to claim; a claim of nothing
// costs this one statement.
const probeModels = `
select exists (select from worker where id = $2 and not reaped),
	array(select m from unnest($1::text[]) m
		where exists (select from lane where model = m and ready and not parked))`

// Claim serves the ready models in turn, in a random order, and gives each its
// share of what is left.
func (d *driver) Claim(ctx context.Context, c store.ClaimRequest) (claims []queue.Claim, err error) {
	err = d.call(ctx, "claim", func(ctx context.Context) error {
		var alive bool
		var ready []string
		if err := d.pool.QueryRow(ctx, probeModels, c.Models, c.Worker).Scan(&alive, &ready); err != nil {
			return err
		}
		if !alive {
			return fmt.Errorf("worker %d: %w", c.Worker, queue.ErrLeaseLost)
		}
		if len(ready) == 0 {
			return nil
		}
		rand.Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
		return d.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) (err error) {
			claims, err = claimAll(ctx, conn, ready, c)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// askAgain bounds how often a claim looks for lanes behind those that it put to
// sleep, since it holds what it has while it does.
const askAgain = 32

// claimAll asks all models at once, then again those that had something, for
// what the others left free, and those that put a lane to sleep.
func claimAll(ctx context.Context, conn *pgxpool.Conn, models []string, c store.ClaimRequest) (claims []queue.Claim, err error) {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(shareCaps, int64(lockCaps))
	for round := 0; len(models) > 0 && len(claims) < c.N && round < askAgain; round++ {
		got := make([]int, len(models))
		left := c.N - len(claims)
		for i, m := range models {
			n := (left + len(models) - i - 1) / (len(models) - i)
			if n == 0 {
				got[i] = 1 // not asked, so not known to be empty
				continue
			}
			left -= n
			b.Queue(claimModel, m, n, c.Worker).Query(func(rows pgx.Rows) error {
				return drain(rows, func(scan scan) error {
					if rows.RawValues()[0] == nil {
						return scanSlept(scan, &got[i])
					}
					c, err := scanClaim(scan)
					claims = append(claims, c)
					got[i]++
					return err
				})
			})
		}
		if err := conn.SendBatch(ctx, &b).Close(); err != nil {
			return nil, err
		}
		b = pgx.Batch{}
		var more []string
		for i, m := range models {
			if got[i] > 0 {
				more = append(more, m)
			}
		}
		models = more
	}
	if _, err := conn.Exec(ctx, "commit"); err != nil {
		return nil, err
	}
	return claims, nil
}

// claimModel picks the lanes with the least virtual time, takes a quantum from
// each, by weight and never beyond its cap, and charges them. running and cap
// are those of the row version that the lock returned, never of an older
// snapshot; requests are checked again by their lock. It waits for nobody.
// Requests past their deadline are left to the sweep; a lane that has no others
// stops to compete, so that it is not picked again in place of one that has. A
// claim of nothing is one row without an id that counts those lanes.
const claimModel = `
with me as materialized (
	select id from worker where id = $3 and not reaped for key share),
pick as materialized (
	select id, tenant, model, weight, running, cap from lane
	where model = $1 and ready and not parked and exists (select from me)
	order by vtime, id
	limit $2::int for no key update skip locked),
room as materialized (
	select id, tenant, model,
		least(ceil($2::int * weight / sum(weight) over ())::int, coalesce(cap - running, 1000000)) as quantum
	from pick),
take as materialized (
	select room.id as lane, room.tenant, room.model, j.id
	from room cross join lateral (
		select id from request
		where lane = room.id and state = 0 and (deadline is null or deadline > now())
		order by ord, id
		limit greatest(room.quantum, 0) for no key update skip locked) j
	limit $2::int),
got as materialized (select lane, count(*)::int as n from take group by lane),
up as (
	update request q set state = 1, attempt = q.attempt + 1, worker = $3, not_before = null
	from take
	where q.id = take.id and q.state + 0 = 0
	returning q.id, take.tenant, take.model, q.path, q.tier, q.stream, q.background, q.store, q.realtime, q.attempt, q.state,
		q.failures, q.reaps, q.created, q.deadline, q.ord),
rest as materialized (
	select room.id, coalesce(got.n, 0) as n, next.ord
	from room left join got on got.lane = room.id
	left join lateral (
		select ord from request
		where lane = room.id and state = 0 and (deadline is null or deadline > now())
		order by ord, id offset coalesce(got.n, 0) limit 1) next on true),
pay as (
	update lane set
		vtime = lane.vtime + rest.n / lane.weight,
		running = case when lane.cap is null then 0 else lane.running + rest.n end,
		parked = coalesce(lane.running + rest.n >= lane.cap, false) or coalesce(lane.parked_until > now(), false),
		head_deadline = rest.ord, ready = rest.ord is not null
	from rest
	where lane.id = rest.id)
select up.id, up.tenant, up.model, up.path, up.tier, up.stream, up.background, up.store, up.realtime, up.attempt, up.state,
	up.failures, up.reaps, up.created, now() - up.created, up.deadline - now(), b.data, slept.n
from (select count(*) as n from rest where n = 0 and ord is null) slept
left join (up left join body b on b.request = up.id) on true
order by up.ord, up.id`

// scanSlept adds how many lanes a claim of nothing put to sleep.
func scanSlept(scan scan, sum *int) error {
	var n int
	err := scan(nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &n)
	*sum += n
	return err
}

func scanClaim(scan scan) (queue.Claim, error) {
	var c queue.Claim
	var remaining *time.Duration
	err := scan((*[16]byte)(&c.ID), &c.Tenant, &c.Model, &c.Path, &c.Tier, &c.Stream, &c.Background, &c.Store, &c.Realtime,
		&c.Attempt, (*int16)(&c.State), &c.Failures, &c.Reaps, &c.Created, &c.Age, &remaining, &c.Body, nil)
	c.Created = c.Created.UTC()
	if remaining != nil {
		c.Remaining = max(*remaining, 1)
	}
	return c, err
}
