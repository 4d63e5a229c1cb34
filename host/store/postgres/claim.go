package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// guardLong bounds what a transaction may hold up when this host stops in the
// middle of it, for the transaction only. It also sets how its statements are
// planned: once for a connection, since to plan one takes longer than to run it,
// and then for tables of any size: a plan with a sequential scan, made while a
// table was almost empty, would read all of it ever after. Nothing is compiled:
// where there is no other plan than a sequential scan, its cost looks endless.
const guardLong = `
select set_config('idle_in_transaction_session_timeout', '10s', true), set_config('statement_timeout', '25s', true),
	set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
	set_config('plan_cache_mode', 'force_generic_plan', true)`

// guardCaps begins a transaction that changes how many requests of a lane run:
// no cap is set meanwhile.
const guardCaps = guardLong + `, pg_advisory_xact_lock_shared($1)`

// Claim serves the ready models in turn, in a random order, and gives each its
// share of what is left. What an earlier transaction of it claimed is returned
// even when a later one fails.
func (d *driver) Claim(ctx context.Context, c store.ClaimRequest) (claims []queue.Claim, err error) {
	c = c.WithDefaults()
	asks := newAsks(c)
	err = d.call(ctx, "claim", func(ctx context.Context) error {
		return d.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) (err error) {
			key := asksKey(asks)
			if ready := d.marks.recall(key, asks); len(ready) > 0 && c.Urgent == 0 {
				claims, err = d.claimAll(ctx, conn, ready, c)
			}
			if err != nil || len(claims) > 0 {
				return d.recallIfFull(key, len(claims) == c.N, err)
			}
			ready, err := d.probe(ctx, conn, c, asks)
			if err != nil || len(ready) == 0 {
				return err
			}
			d.marks.remember(key, ready)
			claims, err = d.claimAll(ctx, conn, ready, c)
			return d.recallIfFull(key, len(claims) == c.N, err)
		})
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// recallIfFull forgets which models had something unless a claim got all that it
// asked for. It returns err.
func (d *driver) recallIfFull(key string, full bool, err error) error {
	if !full || err != nil {
		d.marks.forget(key)
	}
	return err
}

// asksKey tells claims apart that ask different models.
func asksKey(asks []*ask) string {
	var b strings.Builder
	for _, a := range asks {
		if a.to != nil {
			return "" // lanes to escalate to may have to be made first
		}
		b.WriteString(a.model)
		b.WriteByte(0)
	}
	return b.String()
}

// ask is what a claim wants of one model, and what it got in the last round.
type ask struct {
	model  string
	to     *string // escalates to it; nil: it does not
	within *int64  // microseconds
	only   bool    // nothing but what escalates
	mark   mark
	urgent bool // some head is due soon

	n       int  // asked for
	got     int  // claimed
	more    bool // there may be more to claim
	touched int  // lanes that were charged or stopped competing
}

func newAsks(c store.ClaimRequest) []*ask {
	asks := make([]*ask, 0, len(c.Models))
	only := make(map[string]bool, len(c.OnlyEscalate))
	for _, m := range c.OnlyEscalate {
		only[m] = true
	}
	for _, m := range c.Models {
		a := &ask{model: m, only: only[m]}
		if e := c.Escalate[m]; e.To != "" && e.To != m && e.Within > 0 {
			within := micros(e.Within)
			a.to, a.within = &e.To, &within
		}
		if a.to == nil && a.only {
			continue // nothing of it can be served
		}
		asks = append(asks, a)
	}
	return asks
}

// askAgain bounds in how many rounds a claim looks for lanes behind those that
// had less than their share.
const askAgain = 32

// claimAll asks all models at once, then again those that may have more, for
// what the others left free. Each round is a transaction of one round trip.
func (d *driver) claimAll(ctx context.Context, conn *pgxpool.Conn, asks []*ask, c store.ClaimRequest) (claims []queue.Claim, err error) {
	all := slices.Clone(asks)
	rand.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
	for round := 0; len(asks) > 0 && len(claims) < c.N && round < askAgain; round++ {
		got, err := d.claimRound(ctx, conn, asks, c, c.N-len(claims))
		if err != nil && len(claims) == 0 {
			return nil, err
		}
		if err != nil {
			return claims, nil
		}
		claims = append(claims, got...)
		c.Urgent = 0
		var more []*ask
		for _, a := range asks {
			d.mark(a, round)
			if a.n == 0 || (a.more && a.touched > 0) {
				more = append(more, a)
			}
		}
		asks = more
	}
	if len(claims) < c.N {
		for _, a := range all {
			d.marks.drop(a.model)
		}
	}
	return claims, nil
}

// mark remembers where the lanes of a model began, and how full they were.
func (d *driver) mark(a *ask, round int) {
	if a.only || a.n == 0 {
		return
	}
	a.mark.thin = a.mark.thin || (a.more && a.got < a.n)
	d.marks.set(a.model, a.mark.vtime, a.mark.thin && round == 0)
}

// quantum is the most that is taken from a lane while others compete: five rows
// of ten lanes cost less than one row of fifty.
const (
	quantum   = 5
	fewLanes  = 10
	unlimited = 1_000_000
)

// claimRound asks each model once, for n together.
func (d *driver) claimRound(ctx context.Context, conn *pgxpool.Conn, asks []*ask, c store.ClaimRequest, n int) (claims []queue.Claim, err error) {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardCaps, int64(lockCaps))
	urgents := 0
	for _, a := range asks {
		if a.urgent && !a.only {
			urgents++
		}
	}
	for i, a := range asks {
		a.n = (n + len(asks) - i - 1) / (len(asks) - i)
		n -= a.n
		a.got, a.touched, a.more = 0, 0, false
		fair := a.n
		if a.urgent && !a.only && c.Urgent > 0 {
			u := min((c.Urgent+urgents-1)/urgents, a.n)
			urgents, c.Urgent, fair = urgents-1, c.Urgent-u, fair-u
			a.queue(&b, claimUrgent, u, u, 0, new(micros(c.Window)), c, &claims)
		}
		switch lanes := max((fair+quantum-1)/quantum, min(fair, fewLanes)); {
		case fair == 0:
		case a.only:
			a.queue(&b, claimNear, fair, fair, 0, a.within, c, &claims)
		case a.mark.thin:
			a.queue(&b, claimFair, fair, fair, a.mark.vtime, nil, c, &claims)
		default:
			a.queue(&b, claimFair, fair, lanes, a.mark.vtime, nil, c, &claims)
		}
	}
	b.Queue(wakeSlept)
	b.Queue("commit")
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return nil, err
	}
	return claims, nil
}

// queue queues one of the statements of take.go.
func (a *ask) queue(b *pgx.Batch, query string, n, lanes int, vtime float64, within *int64, c store.ClaimRequest, claims *[]queue.Claim) {
	limit := unlimited
	if query != claimFair {
		limit = quantum
	}
	sql := query
	switch {
	case a.to == nil && query == claimFair:
		sql = claimFairOwn
	case a.to == nil && query == claimUrgent:
		sql = claimUrgentOwn
	}
	b.Queue(sql, a.model, n, c.Worker, lanes, vtime, within, limit, a.to, a.within, c.Start).Query(func(rows pgx.Rows) error {
		var more bool
		var touched int
		var mark *float64
		before := a.got
		err := drain(rows, func(scan scan) error {
			if rows.RawValues()[0] == nil {
				return scan(nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &more, &touched, &mark)
			}
			claim, err := scanClaim(scan, a.to, &more, &touched, &mark)
			claim.Model = a.model
			*claims = append(*claims, claim)
			a.got++
			return err
		})
		if query == claimUrgent && a.got-before < n {
			more, touched = true, touched+1 // the rest goes by fairness
		}
		a.more, a.touched = a.more || more, a.touched+touched
		if mark != nil && query == claimFair {
			a.mark.vtime = *mark
		}
		return err
	})
}

func scanClaim(scan scan, to *string, more *bool, touched *int, mark **float64) (queue.Claim, error) {
	var c queue.Claim
	var escalated bool
	var remaining *time.Duration
	err := scan((*[16]byte)(&c.ID), &c.Tenant, &c.Path, &c.Tier, &c.Stream, &c.Background, &c.Store, &c.Realtime,
		&c.Attempt, (*int16)(&c.State), &c.Failures, &c.Reaps, &escalated, &c.Created, &c.Age, &remaining, &c.Body, &c.Secret, more, touched, mark)
	c.Created = c.Created.UTC()
	if escalated {
		c.Escalated = *to
	}
	if remaining != nil {
		c.Remaining = max(*remaining, 1)
	}
	return c, err
}

// probeModels finds the models that have something to claim, and of these the
// ones that have something urgent; a claim of nothing costs this one statement.
// Of a model that only escalates, what is urgent is all there is.
const probeModels = `
select exists (select from worker where id = $1 and not reaped), x.model,
	exists (select from lane where model = x.model and ready and not parked and vtime >= x.mark
		and (x.near is null or head_deadline < now() + x.near * interval '1 microsecond')),
	exists (select from lane where model = x.model and ready and not parked and head_deadline < now() + $5 * interval '1 microsecond')
from unnest($2::text[], $3::float8[], $4::bigint[]) as x(model, mark, near)`

// probe returns what may be claimed from. Without anything it looks again where
// there was a mark, since that may be out of date.
func (d *driver) probe(ctx context.Context, conn *pgxpool.Conn, c store.ClaimRequest, asks []*ask) ([]*ask, error) {
	models, vtimes, nears := make([]string, len(asks)), make([]float64, len(asks)), make([]*int64, len(asks))
	byModel := make(map[string]*ask, len(asks))
	marked, escalates := false, false
	for i, a := range asks {
		a.mark = d.marks.get(a.model)
		models[i], vtimes[i] = a.model, a.mark.vtime
		if a.only {
			nears[i] = a.within
		}
		byModel[a.model] = a
		marked, escalates = marked || a.mark.vtime > 0, escalates || a.to != nil
	}
	var found []*ask
	var b pgx.Batch // one transaction, since it goes at once
	b.Queue(guardLong)
	b.Queue(probeModels, c.Worker, models, vtimes, nears, micros(c.Window)).Query(func(rows pgx.Rows) error {
		return drain(rows, func(scan scan) error {
			var alive, ready bool
			var model string
			var urgent bool
			if err := scan(&alive, &model, &ready, &urgent); err != nil {
				return err
			}
			if !alive {
				return fmt.Errorf("worker %d: %w", c.Worker, queue.ErrLeaseLost)
			}
			if a := byModel[model]; ready {
				a.urgent = urgent
				found = append(found, a)
			}
			return nil
		})
	})
	switch err := conn.SendBatch(ctx, &b).Close(); {
	case err != nil:
		return nil, err
	case len(found) == 0 && marked:
		d.marks.drop(models...)
		return d.probe(ctx, conn, c, asks)
	case escalates:
		return found, d.makeOthers(ctx, conn, found, c.N)
	}
	return found, nil
}
