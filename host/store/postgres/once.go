package postgres

import (
	"bytes"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

type onceKey struct{ tenant, key string }

// once is an idempotency key, locked.
type once struct {
	first   store.Write // of the plan that has it
	request queue.ID    // that it stands for
	hash    []byte
	free    bool // it stands for nothing: the row is this transaction's
	changed bool
}

// note notes what a write wants of keys and conversations.
func (p *plan) note(w *store.Write) {
	if w.Key != nil {
		k := onceKey{w.Insert.Tenant, w.Key.Key}
		if p.once[k] == nil {
			p.once[k] = &once{first: *w}
		}
	}
	if w.Join != nil {
		p.talks[w.Join.Conversation], p.joined = nil, true
	}
	if w.Append != nil && len(w.Append.Items) > 0 {
		p.talks[w.Append.Conversation] = nil
	}
}

// lockOnce makes rows of keys that there are none of, and takes over those that
// stand for nothing any more. Of two hosts with one key the second waits here,
// and then finds it.
const lockOnce = `
insert into idempotency as i (tenant, key, body_hash, request)
select tenant, key, hash, request from unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) as x(tenant, key, hash, request)
order by tenant, key
on conflict (tenant, key) do update set (body_hash, request, created) = (
	select case when f.free then excluded.body_hash else i.body_hash end,
		case when f.free then excluded.request else i.request end,
		case when f.free then excluded.created else i.created end
	from (select i.created < now() - $5::bigint * interval '1 microsecond'
		or exists (select from request r where r.id = i.request and r.state = 12 and r.code = $6::text) as free) f)
returning tenant, key, body_hash, request`

func (p *plan) onceArgs() []any {
	var tenants, keys []string
	var hashes [][]byte
	var requests []pgtype.UUID
	for k, o := range p.once {
		tenants, keys = append(tenants, k.tenant), append(keys, k.key)
		hashes, requests = append(hashes, o.first.Key.Hash), append(requests, uuid(o.first.Insert.ID))
	}
	return []any{tenants, keys, hashes, requests, micros(store.KeepKeys), store.Withdrawn}
}

func (p *plan) readOnce(scan scan) error {
	var k onceKey
	var request [16]byte
	var hash []byte
	if err := scan(&k.tenant, &k.key, &hash, &request); err != nil {
		return err
	}
	o := p.once[k]
	o.request, o.hash = request, hash
	o.free = o.request == o.first.Insert.ID
	return nil
}

// admitOnce returns why a key refuses an insert.
func (p *plan) admitOnce(w *store.Write) error {
	if w.Key == nil {
		return nil
	}
	if o := p.once[onceKey{w.Insert.Tenant, w.Key.Key}]; !o.free {
		return &store.Repeated{ID: o.request, Same: bytes.Equal(o.hash, w.Key.Hash)}
	}
	return nil
}

// take has the key of an admitted insert stand for it.
func (p *plan) take(w *store.Write) {
	if w.Join != nil {
		t := p.talks[w.Join.Conversation]
		t.holder, t.changed = w.Insert.ID, true
	}
	if w.Key == nil {
		return
	}
	o := p.once[onceKey{w.Insert.Tenant, w.Key.Key}]
	o.changed = o.request != w.Insert.ID
	o.free, o.request, o.hash = false, w.Insert.ID, w.Key.Hash
}

// keep leaves the key of a request alone that is there already.
func (p *plan) keep(w *store.Write) {
	if w.Key == nil {
		return
	}
	if o := p.once[onceKey{w.Insert.Tenant, w.Key.Key}]; o.request == w.Insert.ID {
		o.free = false
	}
}

const selectOnce = `
select i.request, i.body_hash from idempotency i
where i.tenant = $1 and i.key = $2 and i.created >= now() - $3::bigint * interval '1 microsecond'
	and not exists (select from request r where r.id = i.request and r.state = 12 and r.code = $4::text)`

// Keyed returns what an insert with the key would be refused with; nil: it would
// not.
func (d *driver) Keyed(ctx context.Context, tenant string, k store.Key) (before *store.Repeated, err error) {
	err = d.call(ctx, "keyed", func(ctx context.Context) error {
		var request [16]byte
		var hash []byte
		err := d.pool.QueryRow(ctx, selectOnce, tenant, k.Key, micros(store.KeepKeys), store.Withdrawn).Scan(&request, &hash)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		before = &store.Repeated{ID: request, Same: bytes.Equal(hash, k.Hash)}
		return err
	})
	if err != nil {
		return nil, err
	}
	return before, nil
}

const (
	giveOnce = `
update idempotency i set request = x.request, body_hash = x.hash
from unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) as x(tenant, key, hash, request)
where i.tenant = x.tenant and i.key = x.key`

	freeOnce = `
delete from idempotency i using unnest($1::text[], $2::text[]) as x(tenant, key)
where i.tenant = x.tenant and i.key = x.key`
)

// queueOnce queues what became of keys whose first insert was refused.
func (p *plan) queueOnce(b *pgx.Batch) {
	var given, freed struct {
		tenants, keys []string
		hashes        [][]byte
		requests      []pgtype.UUID
	}
	for k, o := range p.once {
		switch {
		case o.free:
			freed.tenants, freed.keys = append(freed.tenants, k.tenant), append(freed.keys, k.key)
		case o.changed:
			given.tenants, given.keys = append(given.tenants, k.tenant), append(given.keys, k.key)
			given.hashes, given.requests = append(given.hashes, o.hash), append(given.requests, uuid(o.request))
		}
	}
	if len(given.keys) > 0 {
		b.Queue(giveOnce, given.tenants, given.keys, given.hashes, given.requests)
	}
	if len(freed.keys) > 0 {
		b.Queue(freeOnce, freed.tenants, freed.keys)
	}
}
