package postgres

import (
	"context"

	"github.com/casemate/casemate/host/store"
)

// Inspect reads what a doctor looks at.
func (d *driver) Inspect(ctx context.Context) (r store.Report, err error) {
	r.Stats, err = d.Stats(ctx)
	return r, err
}
