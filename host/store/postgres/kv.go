package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
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

// refKV is a subquery of the keys that are named.
const refKV = `
select distinct coalesce(nullif(x.tenant, ''), l.tenant) as tenant, x.plugin, x.key
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as x(id, tenant, plugin, key)
left join request r on r.id = x.id left join lane l on l.id = r.lane`

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
select tenant, plugin, key, value from (` + refKV + `) n join kv using (tenant, plugin, key)`

// removeKV takes away what lockKV made and no write has put.
const removeKV = `
delete from kv using unnest($1::text[], $2::text[], $3::text[]) as x(tenant, plugin, key)
where kv.tenant = x.tenant and kv.plugin = x.plugin and kv.key = x.key`

const upsertKV = `
insert into kv (tenant, plugin, key, value)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
on conflict (tenant, plugin, key) do update set value = excluded.value, written = excluded.written`

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
	for _, put := range puts {
		k := kvKey{tenant, put.Plugin, put.Key}
		p.kv[k] = current{blob(put.Value), true}
		p.rows.addKV(k, put.Value)
		delete(p.made, k)
	}
}

func (p *plan) queueKV(b *pgx.Batch) {
	if len(p.rows.kv) > 0 {
		b.Queue(upsertKV, p.rows.kvArgs()...)
	}
	if len(p.made) > 0 {
		var tenants, plugins, keys []string
		for k := range p.made {
			tenants, plugins, keys = append(tenants, k.tenant), append(plugins, k.plugin), append(keys, k.key)
		}
		b.Queue(removeKV, tenants, plugins, keys)
	}
}

// KVGet returns the committed value of a plugin's key.
func (d *driver) KVGet(ctx context.Context, tenant, plugin, key string) (value []byte, ok bool, err error) {
	err = d.call(ctx, "kv", func(ctx context.Context) error {
		err := d.pool.QueryRow(ctx, `select value from kv where tenant = $1 and plugin = $2 and key = $3`, tenant, plugin, key).Scan(&value)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		ok = err == nil
		return err
	})
	return value, ok, err
}
