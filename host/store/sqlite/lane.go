package sqlite

import (
	"database/sql"
	"errors"
	"math"
)

// lane returns the id of a lane, which it creates on demand.
func (t *tx) lane(tenant, model string) (id int64, err error) {
	err = t.one(`select id from lane where model = ? and tenant = ?`, []any{model, tenant}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.one(`insert into lane (model, tenant) values (?, ?) returning id`, []any{model, tenant}, &id)
	}
	return id, err
}

const wakeLane = `
update lane set
	ready = 1, head_deadline = min(coalesce(head_deadline, ?2), ?2),
	vtime = iif(ready = 1, vtime, ` + virtualTime + `)
where id = ?1 and (ready = 0 or head_deadline is null or head_deadline > ?2)`

// wake makes the lane claimable when a request with this order joined it.
func (t *tx) wake(lane, ord int64) error {
	t.hints.ready = true
	_, err := t.exec(wakeLane, lane, ord)
	return err
}

// anyOrder is before all.
const anyOrder = math.MinInt64

// selectHead does not see requests past their deadline, which the sweep ends.
const selectHead = `
select ord from request
where lane = ?1 and state = 0 and ord >= ?2 and (deadline is null or deadline > ?3)
order by ord, id
limit 1`

// head returns the order of the lane's first claimable request. None is before
// mark: what is past its deadline need not be walked over again.
func (t *tx) head(lane, mark int64) (ord sql.NullInt64, err error) {
	err = t.one(selectHead, []any{lane, mark, t.now}, &ord)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return ord, err
}

const selectMark = `select head_deadline from lane where id = ? and ready = 1`

const settleLane = `
update lane set
	head_deadline = ?2, ready = (?2 is not null),
	vtime = iif(ready = 0 and ?2 is not null, ` + virtualTime + `, vtime)
where id = ?1 and (head_deadline is not ?2 or ready <> (?2 is not null))`

// settle makes the lane say what its requests say, after some have left it
// otherwise than by a claim. One that had none to claim has none now.
func (t *tx) settle(lane int64) error {
	var head sql.NullInt64
	err := t.one(selectMark, []any{lane}, &head)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	mark := int64(anyOrder)
	if head.Valid {
		mark = head.Int64
	}
	return t.settleFrom(lane, mark)
}

func (t *tx) settleFrom(lane, mark int64) error {
	ord, err := t.head(lane, mark)
	if err != nil {
		return err
	}
	_, err = t.exec(settleLane, lane, ord)
	return err
}
