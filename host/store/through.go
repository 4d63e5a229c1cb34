package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/queue"
)

// urgentShare is how many claims there are to one that goes by deadline.
const urgentShare = 5

// Claim moves up to c.N pending requests to Claimed and returns them; see
// Driver.Claim. One claim in five over time, of all that this host asks for, is
// an urgent one. It returns none while so many writes wait for the database
// that what runs will need the room that is left for its results.
func (s *Store) Claim(ctx context.Context, c ClaimRequest) ([]queue.Claim, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("store: claim: %w", err)
	}
	if c.N <= 0 || len(c.Models) == 0 || s.crowded() {
		return nil, nil
	}
	c.Models = slices.Compact(slices.Sorted(slices.Values(c.Models)))
	c = c.WithDefaults()
	n := uint64(c.N)
	after := s.asked.Add(n)
	c.Urgent = int(after/urgentShare - (after-n)/urgentShare)
	return s.driver.Claim(ctx, c)
}

// Heartbeat extends a worker's lease, or starts a worker.
func (s *Store) Heartbeat(ctx context.Context, b Beat) (Pulse, error) {
	if err := b.check(); err != nil {
		return Pulse{}, fmt.Errorf("store: heartbeat: %w", err)
	}
	b.Targets = slices.Clone(b.Targets)
	for i := range b.Targets {
		b.Targets[i].Cooldown = min(b.Targets[i].Cooldown, MaxPark)
	}
	return s.driver.Heartbeat(ctx, b)
}

// Sweep moves on what time alone moves; see Driver.Sweep.
func (s *Store) Sweep(ctx context.Context, r SweepRequest) (Swept, error) {
	if r.Keep < 0 || r.Grace < 0 || r.MaxReaps < 0 {
		return Swept{}, fmt.Errorf("store: sweep: keep %s, grace %s or max reaps %d is negative: %w", r.Keep, r.Grace, r.MaxReaps, ErrInvalid)
	}
	return s.driver.Sweep(ctx, r.WithDefaults())
}

// Cancel moves a request to Canceled where the state table allows it; see
// Driver.Cancel.
func (s *Store) Cancel(ctx context.Context, tenant string, id queue.ID, code string) (r Record, did bool, err error) {
	if !nameable(tenant) {
		return Record{}, false, fmt.Errorf("store: request %s: %w", id, queue.ErrNotFound)
	}
	return s.driver.Cancel(ctx, tenant, id, code)
}

// Keyed returns what an insert with the key would be refused with; nil: it would
// not.
func (s *Store) Keyed(ctx context.Context, tenant string, k Key) (*Repeated, error) {
	if !nameable(tenant) || !nameable(k.Key) {
		return nil, nil
	}
	return s.driver.Keyed(ctx, tenant, k)
}

// Get returns one request; see Driver.Get.
func (s *Store) Get(ctx context.Context, tenant string, id queue.ID, parts Parts) (Record, error) {
	if !nameable(tenant) {
		return Record{}, fmt.Errorf("store: request %s: %w", id, queue.ErrNotFound)
	}
	return s.driver.Get(ctx, tenant, id, parts)
}

// Events returns what each cursor has not seen yet; see Driver.Events. Of two
// cursors on one request the one that is further behind counts.
func (s *Store) Events(ctx context.Context, cursors []Cursor, limit int) (map[queue.ID]Tail, error) {
	if len(cursors) == 0 || limit <= 0 {
		return map[queue.ID]Tail{}, nil
	}
	at := make(map[queue.ID]int, len(cursors))
	once := make([]Cursor, 0, len(cursors))
	for _, c := range cursors {
		if i, ok := at[c.ID]; ok {
			once[i].After = min(once[i].After, c.After)
			continue
		}
		at[c.ID] = len(once)
		once = append(once, c)
	}
	return s.driver.Events(ctx, once, limit)
}

// Delete removes a request in a final state; see Driver.Delete.
func (s *Store) Delete(ctx context.Context, tenant string, id queue.ID) error {
	if !nameable(tenant) {
		return fmt.Errorf("store: request %s: %w", id, queue.ErrNotFound)
	}
	return s.driver.Delete(ctx, tenant, id)
}

// KVGet returns the committed value of a plugin's key.
func (s *Store) KVGet(ctx context.Context, tenant, plugin, key string) (value []byte, ok bool, err error) {
	if err := names("kv", tenant, plugin, key); err != nil {
		return nil, false, fmt.Errorf("store: %w", err)
	}
	return s.driver.KVGet(ctx, tenant, plugin, key)
}

// KVList returns the committed keys of a plugin that begin with prefix and come
// after after, ascending by their bytes and at most limit of them.
func (s *Store) KVList(ctx context.Context, tenant, plugin, prefix, after string, limit int) (keys []string, err error) {
	if err := names("kv", tenant, plugin, prefix, after); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if limit <= 0 {
		return nil, nil
	}
	return s.driver.KVList(ctx, KVRange{Tenant: tenant, Plugin: plugin, Prefix: prefix, After: after, Limit: limit})
}

// KVUsed counts the committed keys of a plugin, and the bytes of them and their
// values. It looks at each key.
func (s *Store) KVUsed(ctx context.Context, tenant, plugin string) (keys int, bytes int64, err error) {
	if err := names("kv", tenant, plugin); err != nil {
		return 0, 0, fmt.Errorf("store: %w", err)
	}
	return s.driver.KVUsed(ctx, tenant, plugin)
}

// SetLimits creates or changes lanes and gates. A weight of 0 is 1.
func (s *Store) SetLimits(ctx context.Context, l Limits) error {
	l.Lanes = slices.Clone(l.Lanes)
	for i := range l.Lanes {
		if l.Lanes[i].Weight == 0 {
			l.Lanes[i].Weight = 1
		}
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("store: limits: %w", err)
	}
	return s.driver.SetLimits(ctx, l)
}

// Watch passes on hints of other hosts until ctx ends; see Driver.Watch.
func (s *Store) Watch(ctx context.Context, f func(Hint)) error { return s.driver.Watch(ctx, f) }

// Stats counts requests by state and the counters of lanes and gates.
func (s *Store) Stats(ctx context.Context) (Stats, error) { return s.driver.Stats(ctx) }

// Inspect reads what a doctor looks at.
func (s *Store) Inspect(ctx context.Context) (Report, error) { return s.driver.Inspect(ctx) }
