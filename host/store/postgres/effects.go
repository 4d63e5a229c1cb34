package postgres

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// effects are the rows that a plan writes, by table, a slice a column. Where a
// table keeps the last of several writes to one key, only that one is in them,
// since a statement may change a row once.
type effects struct {
	inserts   insertColumns
	changes   []*change
	results   resultColumns
	events    eventColumns
	steps     map[stepKey]response.Step
	decisions map[decisionKey]store.Decision
	kv        map[kvKey]*store.KVPut
	usage     usageColumns
	woken     []pgtype.UUID // requests that joined their lanes
	forgotten []pgtype.UUID // ended and not stored
	closed    []pgtype.UUID // ended, perhaps with open steps
	removed   []pgtype.UUID // deleted, and now let go of
	items     itemColumns
}

// change is what a plan does to one row of request.
type change struct {
	id       pgtype.UUID
	attempt  int
	was, to  queue.State
	moved    bool
	started  bool
	release  bool
	failures int
	delay    time.Duration
	class    queue.Class
	code     string
}

type (
	stepKey struct {
		id      queue.ID
		scope   string
		ordinal int
	}
	decisionKey struct {
		id      queue.ID
		step    string
		try     int
		kind    string
		attempt int
	}
	kvKey struct{ tenant, plugin, key string }
)

type insertColumns struct {
	ids                                 []pgtype.UUID
	lanes, workers, deadlines           []int64 // deadlines in microseconds from now; 0: none
	paths, tiers                        []string
	streams, backgrounds, stores, reals []bool
	states                              []int16
	attempts                            []int32
	bodied                              []pgtype.UUID // those with one
	bodies                              [][]byte
	// Of few; empty when no row has one.
	secrets [][]byte
	batches []pgtype.UUID
	lines   []*int32
	took    []int64 // microseconds
}

func (e *effects) addInsert(w *store.Write, o *owner) {
	c, n := &e.inserts, w.Insert
	c.addFew(w)
	c.ids = append(c.ids, uuid(n.ID))
	c.lanes = append(c.lanes, o.lane)
	c.workers = append(c.workers, o.worker)
	c.deadlines = append(c.deadlines, micros(n.DeadlineIn))
	c.paths = append(c.paths, n.Path)
	c.tiers = append(c.tiers, n.Tier)
	c.streams = append(c.streams, n.Stream)
	c.backgrounds = append(c.backgrounds, n.Background)
	c.stores = append(c.stores, n.Store)
	c.reals = append(c.reals, n.Worker != 0)
	c.states = append(c.states, int16(o.State))
	c.attempts = append(c.attempts, int32(o.Attempt))
	if !w.Recorded() || n.Store {
		c.bodied, c.bodies = append(c.bodied, uuid(n.ID)), append(c.bodies, blob(n.Body))
	}
	if n.Worker == 0 {
		e.woken = append(e.woken, uuid(n.ID))
	}
}

// addFew adds what few inserts have. A column that is shorter than the others is
// null where it ends.
func (c *insertColumns) addFew(w *store.Write) {
	n, row := w.Insert, len(c.ids)
	if n.Secret != nil {
		c.secrets = append(grown(c.secrets, row), n.Secret)
	}
	if n.Batch != (queue.ID{}) {
		c.batches, c.lines = append(grown(c.batches, row), uuid(n.Batch)), append(grown(c.lines, row), new(int32(n.Line)))
	}
	if w.Took > 0 {
		c.took = append(grown(c.took, row), micros(w.Took))
	}
}

// grown returns a column of n rows.
func grown[T any](column []T, n int) []T { return append(column, make([]T, n-len(column))...) }

type resultColumns struct {
	ids      []pgtype.UUID
	statuses []int32
	types    []string
	data     [][]byte
}

func (e *effects) addResult(id queue.ID, r *store.Result) {
	c := &e.results
	c.ids = append(c.ids, uuid(id))
	c.statuses = append(c.statuses, int32(r.Status))
	c.types = append(c.types, r.ContentType)
	c.data = append(c.data, blob(r.Body))
}

type eventColumns struct {
	ids  []pgtype.UUID
	seqs []int64
	data [][]byte
}

func (e *effects) addEvent(id queue.ID, ev response.Event) {
	c := &e.events
	c.ids = append(c.ids, uuid(id))
	c.seqs = append(c.seqs, ev.Seq)
	c.data = append(c.data, blob(ev.Data))
}

func (e *effects) addSteps(id queue.ID, steps []response.Step) {
	for _, s := range steps {
		k := stepKey{id, s.Scope, s.Ordinal}
		if before, ok := e.steps[k]; ok && before.Settled() {
			continue
		}
		if e.steps == nil {
			e.steps = make(map[stepKey]response.Step)
		}
		e.steps[k] = s
	}
}

func (e *effects) addDecisions(o *owner, decisions []store.Decision) {
	for _, d := range decisions {
		if e.decisions == nil {
			e.decisions = make(map[decisionKey]store.Decision)
		}
		e.decisions[decisionKey{o.ID, d.Step, d.Try, d.Kind, o.Attempt}] = d
	}
}

func (e *effects) addKV(k kvKey, put *store.KVPut) {
	if e.kv == nil {
		e.kv = make(map[kvKey]*store.KVPut)
	}
	e.kv[k] = put
}

// usageColumns name tenant and model, since usage outlives its request.
type usageColumns struct {
	ids                                          []pgtype.UUID
	scopes, tenants, models, targets             []string
	ordinals, tries                              []int32
	inputs, outputs, cached, cacheWrites, reason []int64
}

func (e *effects) addUsage(w *store.Write, o *owner) {
	id := w.Fenced().ID
	c := &e.usage
	for _, u := range w.Usage {
		var key laneKey
		if key.tenant, key.model = w.UsedBy(u); o != nil {
			key = o.key
		}
		c.ids = append(c.ids, uuid(id))
		c.scopes = append(c.scopes, u.Scope)
		c.tenants = append(c.tenants, key.tenant)
		c.models = append(c.models, key.model)
		c.targets = append(c.targets, u.Target)
		c.ordinals = append(c.ordinals, int32(u.Ordinal))
		c.tries = append(c.tries, int32(u.Try))
		c.inputs = append(c.inputs, u.Tokens.Input)
		c.outputs = append(c.outputs, u.Tokens.Output)
		c.cached = append(c.cached, u.Tokens.Cached)
		c.cacheWrites = append(c.cacheWrites, u.Tokens.CacheWrite)
		c.reason = append(c.reason, u.Tokens.Reasoning)
	}
}

// changeArgs returns the changes as columns.
func (e *effects) changeArgs() []any {
	n := len(e.changes)
	ids, attempts := make([]pgtype.UUID, n), make([]int32, n)
	was, to := make([]int16, n), make([]int16, n)
	moved, started, release := make([]bool, n), make([]bool, n), make([]bool, n)
	failures, delays := make([]int32, n), make([]int64, n)
	classes, codes := make([]string, n), make([]string, n)
	for i, c := range e.changes {
		ids[i], attempts[i], was[i], to[i] = c.id, int32(c.attempt), int16(c.was), int16(c.to)
		moved[i], started[i], release[i] = c.moved, c.started, c.release
		failures[i], delays[i] = int32(c.failures), micros(c.delay)
		classes[i], codes[i] = string(c.class), c.code
	}
	return []any{ids, attempts, was, to, moved, started, release, failures, delays, classes, codes}
}

// stepArgs returns the steps as columns.
func (e *effects) stepArgs() ([]any, error) {
	n := len(e.steps)
	ids, scopes, ordinals := make([]pgtype.UUID, 0, n), make([]string, 0, n), make([]int32, 0, n)
	var kinds, states, plugins, effects, generations, classes, codes, usages, useds []string
	var settled, began []bool
	var callIDs, tools, inputs, outputs, details, logs [][]byte
	var tries, attempts, statuses []int32
	var retryAfters, fuels []int64
	for k, s := range e.steps {
		usage, err := json.Marshal(s.Usage)
		if err != nil {
			return nil, err
		}
		used, err := json.Marshal(s.Used)
		if err != nil {
			return nil, err
		}
		ids, scopes, ordinals = append(ids, uuid(k.id)), append(scopes, k.scope), append(ordinals, int32(k.ordinal))
		kinds, states, settled = append(kinds, string(s.Kind)), append(states, string(s.State)), append(settled, s.Settled())
		callIDs, tools = append(callIDs, []byte(s.CallID)), append(tools, []byte(s.Tool))
		plugins, effects, generations = append(plugins, s.Plugin), append(effects, s.Effects), append(generations, s.Generation)
		tries, attempts, statuses = append(tries, int32(s.Tries)), append(attempts, int32(s.Attempt)), append(statuses, int32(s.Status))
		inputs, outputs = append(inputs, s.Input), append(outputs, s.Output)
		classes, codes, usages = append(classes, string(s.Class)), append(codes, s.Code), append(usages, string(usage))
		retryAfters, fuels = append(retryAfters, s.RetryAfter), append(fuels, int64(s.Fuel))
		useds = append(useds, string(used))
		began, details, logs = append(began, s.EffectStarted), append(details, []byte(s.Detail)), append(logs, []byte(s.Log))
	}
	return []any{
		ids, scopes, ordinals, kinds, states, settled, callIDs, tools, plugins, effects, tries, attempts,
		generations, inputs, outputs, classes, statuses, codes, retryAfters, usages, fuels, useds, began, details, logs,
	}, nil
}

func (e *effects) decisionArgs() []any {
	var ids []pgtype.UUID
	var steps, kinds, generations, fallbacks []string
	var tries, attempts []int32
	var questions, answers [][]byte
	var fuels []int64
	for k, d := range e.decisions {
		ids, steps, kinds = append(ids, uuid(k.id)), append(steps, k.step), append(kinds, k.kind)
		tries, attempts = append(tries, int32(k.try)), append(attempts, int32(k.attempt))
		questions, answers = append(questions, d.Question), append(answers, d.Answer)
		generations, fallbacks, fuels = append(generations, d.Generation), append(fallbacks, d.Fallback), append(fuels, int64(d.Fuel))
	}
	return []any{ids, steps, tries, kinds, attempts, questions, answers, generations, fallbacks, fuels}
}

// kvArgs returns the puts in the order of their keys, which is the order that
// their rows are locked in: two plugins' writes never wait in a circle. It
// returns nil where there are none.
func (e *effects) kvArgs() []any {
	keys := make([]kvKey, 0, len(e.kv))
	for k, put := range e.kv {
		if !put.Delete {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, func(a, b kvKey) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.plugin, b.plugin), cmp.Compare(a.key, b.key))
	})
	var tenants, plugins, names []string
	var values [][]byte
	var times []int64
	for _, k := range keys {
		tenants, plugins, names = append(tenants, k.tenant), append(plugins, k.plugin), append(names, k.key)
		values, times = append(values, blob(e.kv[k].Value)), append(times, micros(e.kv[k].TTL))
	}
	return []any{tenants, plugins, names, values, times}
}

// micros rounds up, so that no wait gets shorter.
func micros(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// blob keeps an empty value from being stored as null.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
