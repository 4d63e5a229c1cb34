package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/store"
)

// guardBeat bounds how long a host that stops between its two round trips keeps
// others' heartbeats waiting for a target: by much less than a lease.
const guardBeat = `
select set_config('idle_in_transaction_session_timeout', '2s', true), set_config('statement_timeout', '10s', true),
	set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)`

// lockTargets locks every target that a beat names in the order of their ids,
// those included that it has nothing to tell of: an upsert locks a row even when
// its condition keeps it from changing it.
const lockTargets = `
insert into target as t (id, limit_calls, parked_until)
select id, calls, case when cooldown > 0 then now() + cooldown * interval '1 microsecond' end
from unnest($1::text[], $2::int[], $3::bigint[]) as x(id, calls, cooldown)
order by id
on conflict (id) do update set limit_calls = excluded.limit_calls, parked_until = greatest(t.parked_until, excluded.parked_until)
where t.limit_calls <> excluded.limit_calls or excluded.parked_until > coalesce(t.parked_until, '-infinity')`

// selectShares is a statement after the lock, so its snapshot is too: nobody
// else changes the sum of a target's shares meanwhile, unless a worker is reaped
// or leaves. Whose lease is over asks for nothing more, but keeps what it has.
const selectShares = `
select t.id, greatest(ceil(extract(epoch from t.parked_until - now()) * 1000000), 0)::bigint,
	now(), s.worker, s.slots, case when s.worker is null or s.lease_until > now() then s.want else 0 end
from target t
left join (
	select s.target, s.worker, s.slots, s.want, w.lease_until
	from target_share s join worker w on w.id = s.worker and not w.reaped) s on s.target = t.id
where t.id = any($1)`

func (h *beat) queueTargets(b *pgx.Batch) {
	n := len(h.Targets)
	if n == 0 {
		return
	}
	ids, limits, cooldowns := make([]string, n), make([]int32, n), make([]int64, n)
	h.named = make(map[string]*target, n)
	for i, use := range h.Targets {
		ids[i], limits[i], cooldowns[i] = use.Target, int32(use.Limit), micros(use.Cooldown)
		h.named[use.Target] = &target{use: use, share: store.TargetShare{Target: use.Target}}
	}
	b.Queue(lockTargets, ids, limits, cooldowns)
	b.Queue(selectShares, ids).Query(func(rows pgx.Rows) error { return drain(rows, h.scanShare) })
}

func (h *beat) scanShare(scan scan) error {
	var id string
	var cooldown *int64
	var worker *int64
	var slots, want *int
	if err := scan(&id, &cooldown, &h.now, &worker, &slots, &want); err != nil {
		return err
	}
	t := h.named[id]
	if cooldown != nil {
		t.share.Cooldown = time.Duration(*cooldown) * time.Microsecond
	}
	switch {
	case worker == nil:
	case *worker == h.pulse.Worker:
		t.own.Slots = *slots
	default:
		t.others = append(t.others, store.Holding{Worker: *worker, Slots: *slots, Want: *want})
	}
	return nil
}

const upsertShares = `
insert into target_share as s (target, worker, slots, want)
select target, $1, slots, want from unnest($2::text[], $3::int[], $4::int[]) as x(target, slots, want)
on conflict (target, worker) do update set slots = excluded.slots, want = excluded.want
where s.slots <> excluded.slots or s.want <> excluded.want`

const deleteShares = `delete from target_share where worker = $1 and target = any($2::text[])`

// share is the second round trip: it writes this worker's shares, which nobody
// else writes, and commits.
func (h *beat) share(ctx context.Context, conn *pgxpool.Conn) error {
	var limited, free []string
	var slots, wants []int32
	shares := make([]store.TargetShare, 0, len(h.Targets))
	for _, use := range h.Targets {
		t := h.named[use.Target]
		t.own.Worker, t.own.Want, t.own.Keep = h.pulse.Worker, use.Want, use.Keep
		switch {
		case h.Leave:
		case use.Limit == 0:
			free = append(free, use.Target)
		default:
			stored, usable := store.Allot(use.Limit, t.own, t.others, h.now), store.Usable(use.Limit, t.own, t.others, h.now)
			t.share.Slots = usable
			limited, slots, wants = append(limited, use.Target), append(slots, int32(stored)), append(wants, int32(use.Want))
		}
		shares = append(shares, t.share)
	}
	var b pgx.Batch
	switch {
	case h.Leave:
		b.Queue(leaveTargets, h.pulse.Worker)
	default:
		if len(limited) > 0 {
			b.Queue(upsertShares, h.pulse.Worker, limited, slots, wants)
		}
		if len(free) > 0 {
			b.Queue(deleteShares, h.pulse.Worker, free)
		}
	}
	b.Queue("commit")
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	h.pulse.Targets = shares
	return nil
}
