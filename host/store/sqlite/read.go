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

const selectRequest = `
select l.tenant, l.model, r.path, r.tier, r.stream, r.background, r.store, r.realtime, r.state, r.attempt, r.failures,
	r.reaps, coalesce(r.worker, 0), coalesce((select e.model from lane e where e.id = r.escalated), ''), r.class, r.code, r.created, r.started, r.finished, r.not_before, r.deadline, r.batch, coalesce(r.line, 0)
from request r join lane l on l.id = r.lane
where r.id = ?1 and r.deleted = 0 and (?2 = '' or l.tenant = ?2)`

func record(q reader, tenant string, id queue.ID) (store.Record, error) {
	r := store.Record{ID: id}
	var created, started, finished, notBefore, deadline sql.NullInt64
	var batch []byte
	err := q.one(selectRequest, []any{id[:], tenant}, &r.Tenant, &r.Model, &r.Path, &r.Tier, &r.Stream, &r.Background, &r.Store,
		&r.Realtime, &r.State, &r.Attempt, &r.Failures, &r.Reaps, &r.Worker, &r.Escalated, &r.Class, &r.Code,
		&created, &started, &finished, &notBefore, &deadline, &batch, &r.Line)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, fmt.Errorf("request %s: %w", id, queue.ErrNotFound)
	}
	copy(r.Batch[:], batch)
	r.Created, r.Started, r.Finished, r.NotBefore, r.Deadline = at(created), at(started), at(finished), at(notBefore), at(deadline)
	return r, err
}

// Get returns one request, all of its parts from the same moment.
func (d *driver) Get(ctx context.Context, tenant string, id queue.ID, parts store.Parts) (r store.Record, err error) {
	err = d.view(ctx, "get", func(s *snapshot) (err error) {
		if r, err = record(s, tenant, id); err != nil {
			return err
		}
		for _, p := range []struct {
			wanted bool
			read   func(*store.Record) error
		}{
			{parts.Body, s.body},
			{parts.Result, s.result},
			{parts.Steps, s.steps},
			{parts.Events, s.events},
			{parts.Decisions, s.decisions},
			{parts.Usage, s.usage},
		} {
			if p.wanted {
				if err := p.read(&r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return store.Record{}, err
	}
	return r, nil
}

func (s *snapshot) body(r *store.Record) error {
	err := s.one(`select data from body where request = ?`, []any{r.ID[:]}, &r.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

func (s *snapshot) result(r *store.Record) error {
	var result store.Result
	err := s.one(`select status, content_type, data from result where request = ?`, []any{r.ID[:]},
		&result.Status, &result.ContentType, &result.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	r.Result = &result
	return err
}

const selectSteps = `
select scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt, generation, input, output,
	class, status, code, retry_after, usage, fuel, used, effect_started, detail, log
from step where request = ?
order by scope, ordinal`

func (s *snapshot) steps(r *store.Record) error {
	return s.each(selectSteps, []any{r.ID[:]}, func(scan scan) error {
		var st response.Step
		var settled bool
		var usage, used []byte
		err := scan(&st.Scope, &st.Ordinal, &st.Kind, &st.State, &settled, &st.CallID, &st.Tool, &st.Plugin, &st.Effects,
			&st.Tries, &st.Attempt, &st.Generation, &st.Input, &st.Output, &st.Class, &st.Status, &st.Code,
			&st.RetryAfter, &usage, &st.Fuel, &used, &st.EffectStarted, &st.Detail, &st.Log)
		if err != nil {
			return err
		}
		if settled && st.State == response.Failed {
			st.Verdict = response.Final
		}
		r.Steps = append(r.Steps, st)
		kept := &r.Steps[len(r.Steps)-1]
		return errors.Join(json.Unmarshal(usage, &kept.Usage), json.Unmarshal(used, &kept.Used))
	})
}

func (s *snapshot) events(r *store.Record) error {
	return s.each(`select seq, data from event where request = ? order by seq`, []any{r.ID[:]}, func(scan scan) error {
		var e response.Event
		if err := scan(&e.Seq, &e.Data); err != nil {
			return err
		}
		r.Events = append(r.Events, e)
		return nil
	})
}

const selectDecisions = `
select step, try, kind, question, answer, generation, fallback, fuel
from decision where request = ?
order by attempt, step, try, kind desc`

func (s *snapshot) decisions(r *store.Record) error {
	return s.each(selectDecisions, []any{r.ID[:]}, func(scan scan) error {
		var d store.Decision
		if err := scan(&d.Step, &d.Try, &d.Kind, &d.Question, &d.Answer, &d.Generation, &d.Fallback, &d.Fuel); err != nil {
			return err
		}
		r.Decisions = append(r.Decisions, d)
		return nil
	})
}

const selectUsage = `
select scope, ordinal, try, target, input, output, cached, cache_write, reasoning, tenant, model
from usage where request = ?
order by scope, ordinal, try`

func (s *snapshot) usage(r *store.Record) error {
	return s.each(selectUsage, []any{r.ID[:]}, func(scan scan) error {
		var u store.Usage
		t := &u.Tokens
		if err := scan(&u.Scope, &u.Ordinal, &u.Try, &u.Target, &t.Input, &t.Output, &t.Cached, &t.CacheWrite, &t.Reasoning, &u.Tenant, &u.Model); err != nil {
			return err
		}
		r.Usage = append(r.Usage, u)
		return nil
	})
}

// selectTails joins each cursor with at most so many events. One statement sees
// states and events of the same moment.
const selectTails = `
select r.id, r.state, e.seq, e.data
from json_each(?1) c
join request r on r.id = unhex(c.value ->> 0) and r.deleted = 0
left join event e on e.request = r.id and e.seq in (
	select n.seq from event n
	where n.request = r.id and n.seq > (c.value ->> 1)
	order by n.seq limit ?2)
order by r.id, e.seq`

// Events returns what each cursor has not seen yet.
func (d *driver) Events(ctx context.Context, cursors []store.Cursor, limit int) (map[queue.ID]store.Tail, error) {
	from := make([][2]any, len(cursors))
	for i, c := range cursors {
		from[i] = [2]any{c.ID.String(), c.After}
	}
	list, err := json.Marshal(from)
	if err != nil {
		return nil, fmt.Errorf("sqlite: events: %w", err)
	}
	tails := make(map[queue.ID]store.Tail, len(cursors))
	err = d.view(ctx, "events", func(s *snapshot) error {
		return s.each(selectTails, []any{string(list), limit}, func(scan scan) error {
			var id idColumn
			var state queue.State
			var seq sql.NullInt64
			var data []byte
			if err := scan(&id, &state, &seq, &data); err != nil {
				return err
			}
			tail := tails[queue.ID(id)]
			tail.State = state
			if seq.Valid {
				tail.Events = append(tail.Events, response.Event{Seq: seq.Int64, Data: data})
			}
			tails[queue.ID(id)] = tail
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return tails, nil
}
