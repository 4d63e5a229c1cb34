package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// selectOthers finds the lanes that requests may be escalated to and that are
// not there yet. A claim cannot make them: it could have to wait for another.
const selectOthers = `
select a.tenant, x.other
from unnest($1::text[], $2::text[], $3::bigint[]) as x(model, other, within)
cross join lateral (
	select tenant from lane
	where model = x.model and ready and not parked and head_deadline < now() + x.within * interval '1 microsecond'
		and not coalesce((select true from lane b where b.model = x.other and b.tenant = lane.tenant), false)
	order by head_deadline, id limit $4) a`

// makeOthers makes the missing lanes that a claim of n may escalate to.
func (d *driver) makeOthers(ctx context.Context, conn *pgxpool.Conn, asks []*ask, n int) error {
	var models, others []string
	var withins []int64
	for _, a := range asks {
		if a.to != nil {
			models, others, withins = append(models, a.model), append(others, *a.to), append(withins, *a.within)
		}
	}
	if len(models) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, selectOthers, models, others, withins, n)
	if err != nil {
		return err
	}
	missing := make(map[laneKey]int64)
	err = drain(rows, func(scan scan) error {
		var k laneKey
		err := scan(&k.tenant, &k.model)
		missing[k] = 0
		return err
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	return d.laneIDs(ctx, conn, missing)
}
