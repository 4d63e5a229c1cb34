package sqlite

import (
	"context"
	"fmt"

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
	if w.Rowless {
		return nil, t.putUsage(w)
	}
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

func (t *tx) apply(w *store.Write, o owner) error {
	w = w.Lasting()
	if w.Insert != nil {
		if err := t.insert(w, o); err != nil {
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
	if err := t.appendItems(o.tenant, w.Append); err != nil {
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
