package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/store"
)

const selectKV = `
select value from kv
where tenant = ? and plugin = ? and key = ? and ` + lasting

// lasting holds for keys whose time is not up.
const lasting = `(expires_at is null or expires_at > ` + clock + `)`

// value returns what is stored under a plugin's key.
func value(r reader, tenant, plugin, key string) (v []byte, ok bool, err error) {
	err = r.one(selectKV, []any{tenant, plugin, key}, &v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return v, err == nil, err
}

// admitKV compares what the puts were computed from with what is there.
func (t *tx) admitKV(w *store.Write, o owner) (refused, err error) {
	for i := range w.KV {
		p := &w.KV[i]
		if !p.Checked {
			continue
		}
		v, ok, err := value(t, o.tenant, p.Plugin, p.Key)
		if err != nil {
			return nil, err
		}
		if !p.Holds(v, ok) {
			return fmt.Errorf("sqlite: request %s: plugin %q, key %q: %w", o.ID, p.Plugin, p.Key, store.ErrConflict), nil
		}
	}
	return nil, nil
}

const upsertKV = `
insert into kv (tenant, plugin, key, value, written, expires_at) values (?, ?, ?, ?, ?, ?)
on conflict (tenant, plugin, key) do update set
	value = excluded.value, written = excluded.written, expires_at = excluded.expires_at`

const deleteKV = `delete from kv where tenant = ? and plugin = ? and key = ?`

func (t *tx) putKV(tenant string, puts []store.KVPut) error {
	for _, kv := range puts {
		query, args := upsertKV, []any{tenant, kv.Plugin, kv.Key, blob(kv.Value), t.now, t.later(kv.TTL)}
		if kv.Delete {
			query, args = deleteKV, args[:3]
		}
		if _, err := t.exec(query, args...); err != nil {
			return err
		}
	}
	return nil
}

const removeExpiredKV = `
delete from kv where rowid in (
	select rowid from kv where expires_at <= ?1 order by expires_at limit ?2)`

// removeKV deletes keys whose time is up, others writing between the
// transactions.
func (d *driver) removeKV(ctx context.Context, limit int, sum *int) error {
	for n, round := limit, 0; n == limit && round < store.ExpireRounds; round++ {
		err := d.update(ctx, "expire keys", func(t *tx) (err error) {
			n, err = t.exec(removeExpiredKV, t.now, limit)
			return err
		})
		if err != nil {
			return err
		}
		*sum += n
	}
	return nil
}

// KVGet returns the committed value of a plugin's key.
func (d *driver) KVGet(ctx context.Context, tenant, plugin, key string) (v []byte, ok bool, err error) {
	err = d.view(ctx, "kv", func(s *snapshot) (err error) {
		v, ok, err = value(s, tenant, plugin, key)
		return err
	})
	return v, ok, err
}

// listKV has one lower bound, which the index can use; boundKV adds the upper one.
const (
	listKV  = `select key from kv where tenant = ?1 and plugin = ?2 and key >= ?3 and key <> ?4 and ` + lasting
	boundKV = ` and key < ?6`
	pageKV  = ` order by key limit ?5`
)

// KVList returns the committed keys in a range, ascending by their bytes.
func (d *driver) KVList(ctx context.Context, r store.KVRange) (keys []string, err error) {
	least, end := r.Bounds()
	query, args := listKV+pageKV, []any{r.Tenant, r.Plugin, least, r.After, r.Limit}
	if end != "" {
		query, args = listKV+boundKV+pageKV, append(args, end)
	}
	err = d.view(ctx, "list keys", func(s *snapshot) error {
		return s.each(query, args, func(scan scan) error {
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

const countKV = `
select count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) from kv
where tenant = ? and plugin = ? and ` + lasting

// KVUsed counts the committed keys of a plugin, and the bytes of them and their
// values.
func (d *driver) KVUsed(ctx context.Context, tenant, plugin string) (keys int, bytes int64, err error) {
	err = d.view(ctx, "count keys", func(s *snapshot) error {
		return s.one(countKV, []any{tenant, plugin}, &keys, &bytes)
	})
	return keys, bytes, err
}
