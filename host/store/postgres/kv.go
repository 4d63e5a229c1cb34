package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// kvRefs name keys of plugins by the request that writes them. The tenant is
// empty where it is that of a stored request.
type kvRefs struct {
	ids                    []pgtype.UUID
	tenants, plugins, keys []string
}

func (r *kvRefs) add(w *store.Write, p *store.KVPut) {
	tenant := ""
	if w.Insert != nil {
		tenant = w.Insert.Tenant
	}
	r.ids = append(r.ids, uuid(w.Fenced().ID))
	r.tenants, r.plugins, r.keys = append(r.tenants, tenant), append(r.plugins, p.Plugin), append(r.keys, p.Key)
}

func (r *kvRefs) args() []any { return []any{r.ids, r.tenants, r.plugins, r.keys} }

// refKV is a subquery of the keys that are named. Each tenant is looked up by
// itself, as each key is in selectKV: a plan for a join, made while a table was
// small, would go on reading all of it.
const refKV = `
select distinct coalesce(nullif(x.tenant, ''), (select l.tenant from request r join lane l on l.id = r.lane where r.id = x.id)) as tenant, x.plugin, x.key
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as x(id, tenant, plugin, key)`

// lockKV locks the rows of all keys and makes those that were missing, which it
// returns: a key that is not there yet has no other lock. All who lock several
// keys do it in this order, that of kvArgs.
const lockKV = `
insert into kv (tenant, plugin, key, value)
select tenant, plugin, key, '' from (` + refKV + `) n
where tenant is not null
order by tenant collate "C", plugin collate "C", key collate "C"
on conflict (tenant, plugin, key) do update set value = kv.value where false
returning tenant, plugin, key`

// selectKV is a statement after the lock, so its snapshot is too.
const selectKV = `
select n.tenant, n.plugin, n.key, v.value from (` + refKV + `) n
cross join lateral (
	select value from kv
	where kv.tenant = n.tenant and kv.plugin = n.plugin and kv.key = n.key and ` + lastingKV + `
	offset 0) v`

// lastingKV holds for keys whose time is not up.
const lastingKV = `(expires_at is null or expires_at > now())`

// removeKV deletes one key, or what lockKV made and no write has put. It is
// locked already.
const removeKV = `delete from kv where tenant = $1 and plugin = $2 and key = $3`

const upsertKV = `
insert into kv (tenant, plugin, key, value, expires_at)
select tenant, plugin, key, value, now() + nullif(ttl, 0) * interval '1 microsecond'
from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[]) as x(tenant, plugin, key, value, ttl)
on conflict (tenant, plugin, key) do update set
	value = excluded.value, written = excluded.written, expires_at = excluded.expires_at`

// current is the value of a key, as it stands after the writes of the plan that
// came before.
type current struct {
	value []byte
	have  bool
}

func (p *plan) readMade(scan scan) error {
	var k kvKey
	err := scan(&k.tenant, &k.plugin, &k.key)
	p.made[k] = true
	return err
}

func (p *plan) readKV(scan scan) error {
	var k kvKey
	var v []byte
	err := scan(&k.tenant, &k.plugin, &k.key, &v)
	if !p.made[k] {
		p.kv[k] = current{v, true}
	}
	return err
}

// admitKV compares what the puts were computed from with what is there.
func (p *plan) admitKV(w *store.Write, id queue.ID, tenant string) error {
	for i := range w.KV {
		put := &w.KV[i]
		if c := p.kv[kvKey{tenant, put.Plugin, put.Key}]; !put.Holds(c.value, c.have) {
			return fmt.Errorf("postgres: request %s: plugin %q, key %q: %w", id, put.Plugin, put.Key, store.ErrConflict)
		}
	}
	return nil
}

func (p *plan) putKV(tenant string, puts []store.KVPut) {
	for i := range puts {
		put := &puts[i]
		k := kvKey{tenant, put.Plugin, put.Key}
		p.kv[k] = current{put.Value, !put.Delete}
		p.rows.addKV(k, put)
		delete(p.made, k)
	}
}

func (p *plan) queueKV(b *pgx.Batch) {
	if args := p.rows.kvArgs(); args != nil {
		b.Queue(upsertKV, args...)
	}
	for k, put := range p.rows.kv {
		if put.Delete {
			b.Queue(removeKV, k.tenant, k.plugin, k.key)
		}
	}
	for k := range p.made {
		b.Queue(removeKV, k.tenant, k.plugin, k.key)
	}
}

const selectOneKV = `
select value from kv
where tenant = $1 and plugin = $2 and key = $3 and ` + lastingKV

// KVGet returns the committed value of a plugin's key.
func (d *driver) KVGet(ctx context.Context, tenant, plugin, key string) (value []byte, ok bool, err error) {
	err = d.call(ctx, "kv", func(ctx context.Context) error {
		err := d.pool.QueryRow(ctx, selectOneKV, tenant, plugin, key).Scan(&value)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		ok = err == nil
		return err
	})
	return value, ok, err
}

// listKV has one lower bound; boundKV adds the upper one.
const (
	listKV  = `select key from kv where tenant = $1 and plugin = $2 and key >= $3 and key <> $4 and ` + lastingKV
	boundKV = ` and key < $6`
	pageKV  = ` order by key limit $5`
)

// KVList returns the committed keys in a range, ascending by their bytes.
func (d *driver) KVList(ctx context.Context, r store.KVRange) (keys []string, err error) {
	least, end := r.Bounds()
	query, args := listKV+pageKV, []any{r.Tenant, r.Plugin, least, r.After, r.Limit}
	if end != "" {
		query, args = listKV+boundKV+pageKV, append(args, end)
	}
	err = d.call(ctx, "list keys", func(ctx context.Context) error {
		rows, err := d.pool.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
			var key string
			err := scan(&key)
			keys = append(keys, key)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// countKV takes the sizes of large values from where they are named, and does
// not read them.
const countKV = `
select count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint from kv
where tenant = $1 and plugin = $2 and ` + lastingKV

// KVUsed counts the committed keys of a plugin, and the bytes of them and their
// values.
func (d *driver) KVUsed(ctx context.Context, tenant, plugin string) (keys int, bytes int64, err error) {
	err = d.call(ctx, "count keys", func(ctx context.Context) error {
		return d.pool.QueryRow(ctx, countKV, tenant, plugin).Scan(&keys, &bytes)
	})
	return keys, bytes, err
}

// removeExpiredKV waits for nobody: whoever has a key locked writes or deletes it.
const removeExpiredKV = `
delete from kv where ctid = any(array(
	select ctid from kv where expires_at <= now()
	order by expires_at limit $1 for update skip locked))`

// byRow keeps the planner from reading all of a table that it takes for small,
// where rows are named by their places.
const byRow = `set local enable_seqscan = off`

func (d *driver) removeExpired(ctx context.Context, limit int, sum *int) error {
	for n, round := limit, 0; n == limit && round < store.ExpireRounds; round++ {
		var b pgx.Batch
		b.Queue("begin")
		b.Queue(byRow)
		b.Queue(removeExpiredKV, limit).Exec(func(tag pgconn.CommandTag) error {
			n = int(tag.RowsAffected())
			return nil
		})
		b.Queue("commit")
		if err := d.pool.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
		*sum += n
	}
	return nil
}
