package sqlite

import (
	"encoding/json"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

const insertRequest = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline, attempt, worker, created, started, secret, batch, line)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?14, ?10, ?11, ?12, ?13, iif(?8, ?13, null), ?15, ?16, ?17)`

func (t *tx) insert(w *store.Write, o owner) error {
	n := w.Insert
	created := t.now - w.Took.Milliseconds()
	deadline, ord := any(nil), created+queue.Patience.Milliseconds()
	if n.DeadlineIn != 0 {
		ord = created + ceilMillis(n.DeadlineIn)
		deadline = ord
	}
	var batch, line any
	if n.Batch != (queue.ID{}) {
		batch, line = n.Batch[:], n.Line
	}
	_, err := t.exec(insertRequest, o.ID[:], o.lane, n.Path, n.Tier, n.Stream, n.Background, n.Store, n.Worker != 0,
		o.State, deadline, o.Attempt, o.worker, created, ord, n.Secret, batch, line)
	if err != nil {
		return err
	}
	if err := t.putKey(n, w.Key); err != nil {
		return err
	}
	if err := t.hold(o.ID, w.Join); err != nil {
		return err
	}
	if !o.recorded || n.Store {
		if _, err := t.exec(`insert into body (request, data) values (?, ?)`, o.ID[:], blob(n.Body)); err != nil {
			return err
		}
	}
	switch {
	case n.Worker == 0:
		return t.wake(o.lane, ord)
	case o.worker.Valid:
		return t.occupy(o.seat, 1)
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
