package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

const selectRequest = `
select l.tenant, l.model, r.path, r.tier, r.stream, r.background, r.store, r.realtime, r.state, r.attempt, r.failures,
	r.reaps, coalesce(r.worker, 0), coalesce(e.model, ''), r.class, r.code, r.created, r.started, r.finished, r.not_before, r.deadline, r.batch, coalesce(r.line, 0)
from request r join lane l on l.id = r.lane left join lane e on e.id = r.escalated
where r.id = $1 and not r.deleted and ($2 = '' or l.tenant = $2)`

func scanRecord(row pgx.Row, id queue.ID, r *store.Record) error {
	r.ID = id
	var started, finished, notBefore, deadline *time.Time
	var batch pgtype.UUID
	err := row.Scan(&r.Tenant, &r.Model, &r.Path, &r.Tier, &r.Stream, &r.Background, &r.Store, &r.Realtime, (*int16)(&r.State), &r.Attempt, &r.Failures,
		&r.Reaps, &r.Worker, &r.Escalated, (*string)(&r.Class), &r.Code, &r.Created, &started, &finished, &notBefore, &deadline, &batch, &r.Line)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("request %s: %w", id, queue.ErrNotFound)
	}
	r.Created, r.Batch = r.Created.UTC(), batch.Bytes
	r.Started, r.Finished, r.NotBefore, r.Deadline = at(started), at(finished), at(notBefore), at(deadline)
	return err
}

// at returns the time of a stored one, zero for null.
func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

const selectSteps = `
select scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt, generation, input, output,
	class, status, code, retry_after, usage, fuel, used, effect_started, detail, log
from step where request = $1
order by scope collate "C", ordinal`

const selectDecisions = `
select step, try, kind, question, answer, generation, fallback, fuel
from decision where request = $1
order by attempt, step collate "C", try, kind desc`

const selectUsage = `
select scope, ordinal, try, target, input, output, cached, cache_write, reasoning, tenant, model
from usage where request = $1
order by scope collate "C", ordinal, try`

// Get returns one request, all of its parts from the same moment, in one round
// trip.
func (d *driver) Get(ctx context.Context, tenant string, id queue.ID, parts store.Parts) (store.Record, error) {
	var r store.Record
	var b pgx.Batch
	b.Queue("begin isolation level repeatable read read only")
	b.Queue(selectRequest, uuid(id), tenant).QueryRow(func(row pgx.Row) error { return scanRecord(row, id, &r) })
	for _, p := range []struct {
		wanted bool
		query  string
		read   func(scan) error
	}{
		{parts.Body, `select data from body where request = $1`, func(scan scan) error { return scan(&r.Body) }},
		{parts.Result, `select status, content_type, data from result where request = $1`, func(scan scan) error { return scanResult(scan, &r) }},
		{parts.Steps, selectSteps, func(scan scan) error { return scanStep(scan, &r) }},
		{parts.Events, `select seq, data from event where request = $1 order by seq`, func(scan scan) error { return scanEvent(scan, &r) }},
		{parts.Decisions, selectDecisions, func(scan scan) error { return scanDecision(scan, &r) }},
		{parts.Usage, selectUsage, func(scan scan) error { return scanUsage(scan, &r) }},
	} {
		if p.wanted {
			b.Queue(p.query, uuid(id)).Query(func(rows pgx.Rows) error { return drain(rows, p.read) })
		}
	}
	b.Queue("commit")
	err := d.call(ctx, "get", func(ctx context.Context) error { return d.pool.SendBatch(ctx, &b).Close() })
	if err != nil {
		return store.Record{}, err
	}
	return r, nil
}

func scanResult(scan scan, r *store.Record) error {
	r.Result = &store.Result{}
	return scan(&r.Result.Status, &r.Result.ContentType, &r.Result.Body)
}

func scanStep(scan scan, r *store.Record) error {
	var s response.Step
	var settled bool
	var callID, tool, detail, log []byte
	var usage, used string
	var fuel int64
	err := scan(&s.Scope, &s.Ordinal, (*string)(&s.Kind), (*string)(&s.State), &settled, &callID, &tool, &s.Plugin, &s.Effects, &s.Tries, &s.Attempt,
		&s.Generation, &s.Input, &s.Output, (*string)(&s.Class), &s.Status, &s.Code, &s.RetryAfter, &usage, &fuel,
		&used, &s.EffectStarted, &detail, &log)
	if err != nil {
		return err
	}
	s.CallID, s.Tool, s.Fuel = string(callID), string(tool), uint64(fuel)
	s.Detail, s.Log = string(detail), string(log)
	if settled && s.State == response.Failed {
		s.Verdict = response.Final
	}
	r.Steps = append(r.Steps, s)
	kept := &r.Steps[len(r.Steps)-1]
	return errors.Join(json.Unmarshal([]byte(usage), &kept.Usage), json.Unmarshal([]byte(used), &kept.Used))
}

func scanEvent(scan scan, r *store.Record) error {
	var e response.Event
	err := scan(&e.Seq, &e.Data)
	r.Events = append(r.Events, e)
	return err
}

func scanDecision(scan scan, r *store.Record) error {
	var d store.Decision
	var fuel int64
	err := scan(&d.Step, &d.Try, &d.Kind, &d.Question, &d.Answer, &d.Generation, &d.Fallback, &fuel)
	d.Fuel = uint64(fuel)
	r.Decisions = append(r.Decisions, d)
	return err
}

func scanUsage(scan scan, r *store.Record) error {
	var u store.Usage
	t := &u.Tokens
	err := scan(&u.Scope, &u.Ordinal, &u.Try, &u.Target, &t.Input, &t.Output, &t.Cached, &t.CacheWrite, &t.Reasoning, &u.Tenant, &u.Model)
	r.Usage = append(r.Usage, u)
	return err
}

// selectTails is one statement, so it sees states and events of the same moment.
const selectTails = `
select r.id, r.state, e.seq, e.data
from unnest($1::uuid[], $2::bigint[]) as c(id, after)
join request r on r.id = c.id and not r.deleted
left join lateral (
	select seq, data from event
	where request = c.id and seq > c.after
	order by seq limit $3) e on true
order by r.id, e.seq`

// Events returns what each cursor has not seen yet.
func (d *driver) Events(ctx context.Context, cursors []store.Cursor, limit int) (map[queue.ID]store.Tail, error) {
	ids, after := make([]pgtype.UUID, len(cursors)), make([]int64, len(cursors))
	for i, c := range cursors {
		ids[i], after[i] = uuid(c.ID), c.After
	}
	tails := make(map[queue.ID]store.Tail, len(cursors))
	err := d.call(ctx, "events", func(ctx context.Context) error {
		rows, err := d.pool.Query(ctx, selectTails, ids, after, limit)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
			var id [16]byte
			var state int16
			var seq *int64
			var data []byte
			if err := scan(&id, &state, &seq, &data); err != nil {
				return err
			}
			tail := tails[id]
			tail.State = queue.State(state)
			if seq != nil {
				tail.Events = append(tail.Events, response.Event{Seq: *seq, Data: data})
			}
			tails[id] = tail
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return tails, nil
}
