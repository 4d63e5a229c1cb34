package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/store"
)

const selectKV = `select value from kv where tenant = ? and plugin = ? and key = ?`

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
insert into kv (tenant, plugin, key, value, written) values (?, ?, ?, ?, ?)
on conflict (tenant, plugin, key) do update set value = excluded.value, written = excluded.written`

func (t *tx) putKV(tenant string, puts []store.KVPut) error {
	for _, kv := range puts {
		if _, err := t.exec(upsertKV, tenant, kv.Plugin, kv.Key, blob(kv.Value), t.now); err != nil {
			return err
		}
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
