package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Write commits all writes in one transaction.
func (d *driver) Write(ctx context.Context, writes []store.Write) ([]error, error) {
	results := make([]error, len(writes))
	err := d.update(ctx, "write", func(t *tx) error {
		for i := range writes {
			w := &writes[i]
			var err error
			if results[i], err = t.write(w); err != nil {
				return fmt.Errorf("request %s: %w", w.Fenced().ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// write applies one write, or only its usage when it is refused. Everything
// that can refuse it is asked before anything is changed, so that no savepoint
// is needed.
func (t *tx) write(w *store.Write) (refused, err error) {
	o, refused, err := t.admit(w)
	if err != nil {
		return nil, err
	}
	if refused == nil {
		if err := t.apply(w, o); err != nil {
			return nil, err
		}
	}
	return refused, t.putUsage(w)
}

// owner is what a write is fenced by.
type owner struct {
	queue.Fence
	lane    int64
	worker  sql.NullInt64
	store   bool
	deleted bool
	tenant  string
}

const selectOwner = `
select r.state, r.attempt, r.lane, r.worker, r.store, r.deleted, l.tenant
from request r join lane l on l.id = r.lane
where r.id = ?`

func (t *tx) owner(id queue.ID) (o owner, found bool, err error) {
	o.ID = id
	err = t.one(selectOwner, []any{id[:]}, &o.State, &o.Attempt, &o.lane, &o.worker, &o.store, &o.deleted, &o.tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	return o, err == nil, err
}

// admit asks all that can refuse a write: the fence, or for an insert its id,
// worker and lane, then the order of its events and what its puts were
// computed from.
func (t *tx) admit(w *store.Write) (o owner, refused, err error) {
	o, found, err := t.owner(w.Fenced().ID)
	if err != nil {
		return o, nil, err
	}
	switch {
	case w.Insert != nil && found:
		return o, fmt.Errorf("sqlite: request %s: %w", o.ID, store.ErrExists), nil
	case w.Insert != nil:
		if o, refused, err = t.admitInsert(w.Insert); refused != nil || err != nil {
			return o, refused, err
		}
	case !found:
		return o, &store.LeaseLost{ID: o.ID, Gone: true}, nil
	case o.Fence != w.Fence, w.LetGo && !o.worker.Valid:
		return o, &store.LeaseLost{ID: o.ID, State: o.State, Attempt: o.Attempt}, nil
	}
	if refused, err = t.admitEvents(w, o); refused == nil && err == nil {
		refused, err = t.admitKV(w, o)
	}
	return o, refused, err
}

func (t *tx) admitEvents(w *store.Write, o owner) (refused, err error) {
	if len(w.Events) == 0 {
		return nil, nil
	}
	var last int64
	if err := t.one(`select coalesce(max(seq), -1) from event where request = ?`, []any{o.ID[:]}, &last); err != nil {
		return nil, err
	}
	if err := w.After(last); err != nil {
		return fmt.Errorf("sqlite: request %s: %w", o.ID, err), nil
	}
	return nil, nil
}

func (t *tx) admitInsert(n *queue.New) (o owner, refused, err error) {
	w := store.Write{Insert: n}
	o = owner{Fence: w.Fenced(), store: n.Store, tenant: n.Tenant}
	if o.lane, err = t.lane(n.Tenant, n.Model); err != nil {
		return o, nil, err
	}
	if n.Worker == 0 {
		return o, nil, nil
	}
	o.worker = sql.NullInt64{Int64: n.Worker, Valid: true}
	alive, err := t.alive(n.Worker)
	if err != nil {
		return o, nil, err
	}
	if !alive {
		return o, &store.LeaseLost{ID: n.ID, Gone: true}, nil
	}
	var full bool
	if err := t.one(`select coalesce(running >= cap, 0) from lane where id = ?`, []any{o.lane}, &full); err != nil {
		return o, nil, err
	}
	if full {
		return o, fmt.Errorf("sqlite: lane %q %q: %w", n.Tenant, n.Model, queue.ErrAtCap), nil
	}
	return o, nil, nil
}

func (t *tx) apply(w *store.Write, o owner) error {
	if w.Insert != nil {
		if err := t.insert(w.Insert, o); err != nil {
			return err
		}
	}
	if err := t.putSteps(o.ID, w.Steps); err != nil {
		return err
	}
	for _, e := range w.Events {
		if _, err := t.exec(`insert into event (request, seq, data) values (?, ?, ?)`, o.ID[:], e.Seq, blob(e.Data)); err != nil {
			return err
		}
	}
	if err := t.putDecisions(o, w.Decisions); err != nil {
		return err
	}
	if err := t.putKV(o.tenant, w.KV); err != nil {
		return err
	}
	switch {
	case w.LetGo:
		return t.letGo(o)
	case w.Move != nil:
		return t.move(o, w.Move, w.Failures)
	case w.Failures != 0:
		_, err := t.exec(`update request set failures = failures + ? where id = ?`, w.Failures, o.ID[:])
		return err
	}
	return nil
}

const insertRequest = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline, attempt, worker, created, started)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, coalesce(?10, ?13), ?10, ?11, ?12, ?13, iif(?8, ?13, null))`

func (t *tx) insert(n *queue.New, o owner) error {
	deadline := t.later(n.DeadlineIn)
	_, err := t.exec(insertRequest, o.ID[:], o.lane, n.Path, n.Tier, n.Stream, n.Background, n.Store, n.Worker != 0,
		o.State, deadline, o.Attempt, o.worker, t.now)
	if err != nil {
		return err
	}
	if _, err := t.exec(`insert into body (request, data) values (?, ?)`, o.ID[:], blob(n.Body)); err != nil {
		return err
	}
	if n.Worker != 0 {
		return t.occupy(o.lane, 1)
	}
	ord := t.now
	if deadline != nil {
		ord = deadline.(int64)
	}
	return t.wake(o.lane, ord)
}

const moveRequest = `
update request set
	state = ?4, failures = failures + ?5,
	worker = iif(?6, null, worker), not_before = ?7,
	started = iif(?4 = 2, coalesce(started, ?8), started), finished = iif(?4 >= 10, ?8, null),
	class = ?9, code = ?10
where id = ?1 and attempt = ?2 and state = ?3
returning ord`

func (t *tx) move(o owner, m *store.Move, failures int) error {
	var notBefore any
	if m.To == queue.Waiting {
		notBefore = t.now + ceilMillis(m.Delay)
	}
	class, code := m.Class, m.Code
	if !m.To.Final() {
		class, code = "", ""
	}
	var ord int64
	err := t.one(moveRequest, []any{o.ID[:], o.Attempt, o.State, m.To, failures, m.Releases(), notBefore, t.now, string(class), code}, &ord)
	if err != nil {
		return err
	}
	if o.worker.Valid && m.Releases() {
		if err := t.occupy(o.lane, -1); err != nil {
			return err
		}
	}
	if m.To == queue.Pending {
		return t.wake(o.lane, ord)
	}
	if !m.To.Final() {
		return nil
	}
	if !o.store || m.To == queue.Failed {
		if err := t.leaveBehind(o.ID, o.store); err != nil || !o.store {
			return err
		}
	}
	if m.Result == nil {
		return nil
	}
	_, err = t.exec(`insert into result (request, status, content_type, data) values (?, ?, ?, ?)`,
		o.ID[:], m.Result.Status, m.Result.ContentType, blob(m.Result.Body))
	return err
}

// closeSteps settles what was open when its request ended otherwise than by its
// plan: what had begun is abandoned, the rest was skipped.
const closeSteps = `
update step set state = iif(state = 'running', 'abandoned', 'skipped'), settled = 1, class = 'canceled'
where request = ? and not settled`

// letGo frees the slot of a canceled request. If it was deleted meanwhile, this
// was the last that held it.
func (t *tx) letGo(o owner) error {
	q := `update request set worker = null where id = ?`
	if o.deleted {
		q = `delete from request where id = ?`
	}
	if _, err := t.exec(q, o.ID[:]); err != nil {
		return err
	}
	if _, err := t.exec(closeSteps, o.ID[:]); err != nil {
		return err
	}
	return t.occupy(o.lane, -1)
}

// leaveBehind is what remains of a request that ended otherwise than by its plan.
func (t *tx) leaveBehind(id queue.ID, stored bool) error {
	if !stored {
		return t.forget(id)
	}
	_, err := t.exec(closeSteps, id[:])
	return err
}

// forget deletes what a request leaves behind only if it is stored; what its
// policies were asked may repeat what the client sent.
func (t *tx) forget(id queue.ID) error {
	for _, q := range []string{
		`update decision set question = x'7b7d' where request = ?`,
		`delete from body where request = ?`,
		`delete from step where request = ?`,
		`delete from event where request = ?`,
	} {
		if _, err := t.exec(q, id[:]); err != nil {
			return err
		}
	}
	return nil
}

const upsertStep = `
insert into step (request, scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt,
	generation, input, output, class, status, code, retry_after, usage, fuel, used, effect_started, detail, log)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (request, scope, ordinal) do update set
	kind = excluded.kind, state = excluded.state, settled = excluded.settled, call_id = excluded.call_id,
	tool = excluded.tool, plugin = excluded.plugin, effects = excluded.effects, tries = excluded.tries,
	attempt = excluded.attempt, generation = excluded.generation, input = excluded.input, output = excluded.output,
	class = excluded.class, status = excluded.status, code = excluded.code, retry_after = excluded.retry_after,
	usage = excluded.usage, fuel = excluded.fuel, used = excluded.used, effect_started = excluded.effect_started,
	detail = excluded.detail, log = excluded.log
where step.settled = 0`

func (t *tx) putSteps(id queue.ID, steps []response.Step) error {
	for _, s := range steps {
		usage, err := json.Marshal(s.Usage)
		if err != nil {
			return err
		}
		used, err := json.Marshal(s.Used)
		if err != nil {
			return err
		}
		_, err = t.exec(upsertStep, id[:], s.Scope, s.Ordinal, string(s.Kind), string(s.State), s.Settled(), []byte(s.CallID), []byte(s.Tool),
			s.Plugin, s.Effects, s.Tries, s.Attempt, s.Generation, s.Input, s.Output, string(s.Class), s.Status, s.Code,
			s.RetryAfter, string(usage), int64(s.Fuel), string(used), s.EffectStarted, []byte(s.Detail), []byte(s.Log))
		if err != nil {
			return err
		}
	}
	return nil
}

const upsertDecision = `
insert into decision (request, step, try, kind, attempt, question, answer, generation, fallback, fuel, made)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (request, step, try, kind, attempt) do update set
	question = excluded.question, answer = excluded.answer, generation = excluded.generation,
	fallback = excluded.fallback, fuel = excluded.fuel, made = excluded.made`

func (t *tx) putDecisions(o owner, decisions []store.Decision) error {
	for _, d := range decisions {
		_, err := t.exec(upsertDecision, o.ID[:], d.Step, d.Try, d.Kind, o.Attempt, d.Question, d.Answer, d.Generation, d.Fallback, int64(d.Fuel), t.now)
		if err != nil {
			return err
		}
	}
	return nil
}

// insertUsage names tenant and model, since usage outlives its request.
const insertUsage = `
insert into usage (request, scope, ordinal, try, target, input, output, cached, cache_write, reasoning, used, tenant, model)
select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, coalesce(l.tenant, ?12), coalesce(l.model, ?13)
from (select 1) left join request r on r.id = ?1 left join lane l on l.id = r.lane
where true
on conflict (request, scope, ordinal, try) do nothing`

func (t *tx) putUsage(w *store.Write) error {
	id := w.Fenced().ID
	for _, u := range w.Usage {
		tenant, model := w.UsedBy(u)
		_, err := t.exec(insertUsage, id[:], u.Scope, u.Ordinal, u.Try, u.Target,
			u.Tokens.Input, u.Tokens.Output, u.Tokens.Cached, u.Tokens.CacheWrite, u.Tokens.Reasoning, t.now, tenant, model)
		if err != nil {
			return err
		}
	}
	return nil
}

// blob keeps an empty value from being stored as null.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
