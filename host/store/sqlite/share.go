package sqlite

import (
	"time"

	"github.com/casemate/casemate/host/store"
)

const upsertTarget = `
insert into target (id, limit_calls, parked_until) values (?1, ?2, ?3)
on conflict (id) do update set
	limit_calls = excluded.limit_calls,
	parked_until = nullif(max(coalesce(parked_until, 0), coalesce(excluded.parked_until, 0)), 0)
returning max(0, coalesce(parked_until, 0) - ?4)`

const (
	upsertShare = `
insert into target_share (target, worker, slots, want) values (?1, ?2, ?3, ?4)
on conflict (target, worker) do update set slots = excluded.slots, want = excluded.want`

	removeShare = `delete from target_share where target = ?1 and worker = ?2`
)

// shareTargets notes what a worker says of targets and answers its part of each.
func (t *tx) shareTargets(worker int64, uses []store.TargetUse) (shares []store.TargetShare, err error) {
	for _, u := range uses {
		s := store.TargetShare{Target: u.Target}
		var left int64
		if err := t.one(upsertTarget, []any{u.Target, u.Limit, t.later(u.Cooldown), t.now}, &left); err != nil {
			return nil, err
		}
		s.Cooldown = time.Duration(left) * time.Millisecond
		if u.Limit > 0 {
			s.Slots, err = t.shareSlots(worker, u)
		} else {
			_, err = t.exec(removeShare, u.Target, worker)
		}
		if err != nil {
			return nil, err
		}
		shares = append(shares, s)
	}
	return shares, nil
}

// selectHoldings reads the shares of workers that may still use them. One whose
// lease is over keeps what it has, but asks for nothing.
const selectHoldings = `
select s.worker, s.slots, iif(w.lease_until > ?2, s.want, 0)
from target_share s join worker w on w.id = s.worker and w.reaped = 0
where s.target = ?1`

// shareSlots notes how many slots of the target the worker has from now on, and
// answers how many it may begin calls on.
func (t *tx) shareSlots(worker int64, u store.TargetUse) (int, error) {
	own := store.Holding{Worker: worker, Want: u.Want, Keep: u.Keep}
	var others []store.Holding
	err := t.each(selectHoldings, []any{u.Target, t.now}, func(scan scan) error {
		var h store.Holding
		err := scan(&h.Worker, &h.Slots, &h.Want)
		if h.Worker == worker {
			own.Slots = h.Slots
		} else {
			others = append(others, h)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	now := time.UnixMilli(t.now)
	_, err = t.exec(upsertShare, u.Target, worker, store.Allot(u.Limit, own, others, now), u.Want)
	return store.Usable(u.Limit, own, others, now), err
}
