package postgres

import (
	"context"

	"github.com/casemate/casemate/host/store"
)

// Watch returns when ctx ends.
func (d *driver) Watch(ctx context.Context, _ func(store.Hint)) error {
	<-ctx.Done()
	return nil
}
