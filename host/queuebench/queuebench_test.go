package queuebench_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queuebench"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// rig makes scratch databases and counts them.
type rig struct {
	t           *testing.T
	url         string
	made, there int
}

func (r *rig) scratch(ctx context.Context) (queuebench.Database, error) {
	r.made++
	r.there++
	if path, ok := strings.CutPrefix(r.url, "sqlite:"); ok {
		dir, err := os.MkdirTemp(filepath.Dir(path), "scratch")
		return queuebench.Database{
			Open: func(ctx context.Context, _ bool) (store.Driver, error) {
				return sqlite.Open(ctx, filepath.Join(dir, "b.db"), sqlite.Options{})
			},
			Drop: func(context.Context) error { r.there--; return os.RemoveAll(dir) },
		}, err
	}
	url, drop, err := postgres.Scratch(ctx, r.url)
	return queuebench.Database{
		Open: func(ctx context.Context, listen bool) (store.Driver, error) {
			o := postgres.Options{Listen: "off"}
			if listen {
				o.Listen = ""
			}
			return postgres.Open(ctx, url, o)
		},
		Drop: func(ctx context.Context) error { r.there--; return drop(ctx) },
	}, err
}

// TestRun measures small: every table is filled, what must hold holds, and
// nothing is left.
func TestRun(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		rig := &rig{t: t, url: url}
		shared := strings.HasPrefix(url, "postgres")
		r, err := queuebench.Run(t.Context(), queuebench.Options{Scratch: rig.scratch, Shared: shared, Backlog: 2000, Quick: true})
		if err != nil {
			t.Fatal(err)
		}
		if rig.made == 0 || rig.there != 0 {
			t.Errorf("made %d databases, %d are still there", rig.made, rig.there)
		}
		if len(r.Costs) != 2 || len(r.Rates) != 4 || len(r.Whole) != 2 {
			t.Errorf("got %d costs, %d rates, %d of whole hosts; want 2, 4, 2", len(r.Costs), len(r.Rates), len(r.Whole))
		}
		for _, c := range r.Costs {
			if c.Mean <= 0 || c.P50 <= 0 || c.P99 < c.P50 || c.Lanes > 50_000 {
				t.Errorf("cost: got %+v", c)
			}
		}
		for _, x := range append(r.Rates, r.Whole...) {
			if x.PerSecond <= 0 {
				t.Errorf("rate: got %+v", x)
			}
		}
		if f := r.Fairness; f.Served == 0 || f.Jain < 0.8 || f.Jain > 1 || f.Whale > 0.1 {
			t.Errorf("fairness: got %+v", f)
		}
		if c := r.Cap; c.Samples == 0 || c.Over != 0 || c.Highest > c.Cap || c.Drift != 0 {
			t.Errorf("cap: got %+v", c)
		}
		want := 2
		if shared {
			want = 5
		}
		if len(r.Starts) != want {
			t.Errorf("got %d starts, want %d", len(r.Starts), want)
		}
		for _, s := range r.Starts {
			if s.P50 <= 0 || s.P99 < s.P50 || s.Samples == 0 {
				t.Errorf("start: got %+v", s)
			}
		}
		var out bytes.Buffer
		if err := r.Print(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Claims of 50", "Jain index", "over the cap", "requests/s", "whole host", "Enqueue to start", "2,000"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in:\n%s", want, out.String())
			}
		}
	})
}

// TestRunStops: a run that is told to stop removes what it made.
func TestRunStops(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		rig := &rig{t: t, url: url}
		ctx, stop := context.WithCancel(t.Context())
		steps := 0
		_, err := queuebench.Run(ctx, queuebench.Options{
			Scratch: rig.scratch, Backlog: 4000, Quick: true,
			Progress: func(string) {
				if steps++; steps == 2 {
					time.AfterFunc(5*time.Millisecond, stop)
				}
			},
		})
		if !errors.Is(err, context.Canceled) || errors.Is(err, queuebench.ErrLeft) {
			t.Errorf("got %v, want that it was canceled and nothing left", err)
		}
		if rig.made == 0 || rig.there != 0 {
			t.Errorf("made %d databases, %d are still there", rig.made, rig.there)
		}
	})
}

// TestRunSaysWhatIsLeft: a scratch database that cannot be removed is told.
func TestRunSaysWhatIsLeft(t *testing.T) {
	stuck := errors.New("stuck")
	_, err := queuebench.Run(t.Context(), queuebench.Options{Scratch: func(context.Context) (queuebench.Database, error) {
		return queuebench.Database{
			Open: func(context.Context, bool) (store.Driver, error) { return nil, errors.New("no") },
			Drop: func(context.Context) error { return stuck },
		}, nil
	}})
	if !errors.Is(err, queuebench.ErrLeft) || !errors.Is(err, stuck) {
		t.Errorf("got %v, want ErrLeft and why", err)
	}
}
