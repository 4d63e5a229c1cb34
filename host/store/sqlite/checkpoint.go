package sqlite

import (
	"context"
	"database/sql"
	"time"
)

const (
	// checkpointPages is how far the log grows before a commit has to copy it
	// back itself: never, as long as somebody sweeps.
	checkpointPages = 1 << 17
	// keepLog is how much of the log's file stays when it begins anew, in bytes.
	keepLog = 64 << 20
	// restartPages is how far it grows until writers have to wait for the end of
	// a checkpoint, so that it can begin anew.
	restartPages = 1 << 12
	// restartWait is how long they wait for readers of an older state.
	restartWait = 10 * time.Millisecond
)

func (d *driver) openCheckpointer() (err error) {
	o := d.o
	o.BusyTimeout = min(o.BusyTimeout, restartWait)
	if d.checkpointer, err = sql.Open("sqlite", dsn(d.file, o, "", "synchronous(full)")); err != nil {
		return err
	}
	d.checkpointer.SetMaxOpenConns(1)
	return nil
}

// checkpoint copies the log back into the database file, beside those who write.
// What they add meanwhile keeps the log from ever beginning anew, so once it is
// long they wait while the little that is left is copied too.
func (d *driver) checkpoint(ctx context.Context) error {
	log, err := d.copyLog(ctx, "passive")
	if err != nil || log < restartPages {
		return err
	}
	return d.inTurn(ctx, func() error {
		_, err := d.copyLog(ctx, "restart")
		return err
	})
}

// copyLog returns the length of the log in pages. That somebody else was busy
// with it is no error.
func (d *driver) copyLog(ctx context.Context, how string) (log int, err error) {
	var busy, copied int
	err = d.checkpointer.QueryRowContext(ctx, "pragma wal_checkpoint("+how+")").Scan(&busy, &log, &copied)
	return log, classify(err)
}
