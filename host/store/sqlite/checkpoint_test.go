package sqlite

import (
	"testing"
	"time"

	"github.com/casemate/casemate/host/store"
)

// log returns the length of the log in pages and how much of it is copied.
func (d *driver) log(t *testing.T) (pages, copied int) {
	t.Helper()
	var busy int
	if err := d.checkpointer.QueryRow(`pragma wal_checkpoint(noop)`).Scan(&busy, &pages, &copied); err != nil {
		t.Fatal(err)
	}
	return pages, copied
}

// TestCommitsLeaveTheLogAlone: they would take as long as copying it does. The
// sweep copies it.
func TestCommitsLeaveTheLogAlone(t *testing.T) {
	d := opened(t)
	const sqliteDefault = 1000 // pages after which a commit would copy them
	pages := 0
	for range 100 {
		d.enqueue(t, 1<<17)
		var copied int
		if pages, copied = d.log(t); copied != 0 {
			t.Fatalf("a commit copied %d pages of a log of %d", copied, pages)
		}
	}
	if pages < 2*sqliteDefault || pages > restartPages {
		t.Fatalf("the log has %d pages: the test needs more than %d, at most %d", pages, 2*sqliteDefault, restartPages)
	}
	if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	if got, copied := d.log(t); copied != got || got < pages {
		t.Errorf("after a sweep: %d of %d pages are copied", copied, got)
	}
}

// TestLogBeginsAnew although somebody writes all the time while it is copied.
func TestLogBeginsAnew(t *testing.T) {
	d := opened(t)
	for most := range 100 {
		d.enqueue(t, 1<<20)
		if pages, _ := d.log(t); pages > restartPages {
			break
		}
		if most == 99 {
			t.Fatal("the log does not grow")
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				d.enqueue(t, 1)
			}
		}
	}()
	_, err := d.Sweep(t.Context(), store.SweepRequest{})
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	d.enqueue(t, 1)
	if pages, _ := d.log(t); pages > restartPages/2 {
		t.Errorf("after a sweep the log has %d pages", pages)
	}
}

// TestLongReaderDelaysNobody: what it reads is not copied over, and commits do
// not wait for it.
func TestLongReaderDelaysNobody(t *testing.T) {
	d := opened(t)
	id := d.enqueue(t, 1)
	err := d.view(t.Context(), "read", func(s *snapshot) error {
		if _, err := record(s, "t", id); err != nil {
			return err
		}
		for range 20 {
			d.enqueue(t, 1<<20)
		}
		begun := time.Now()
		if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
			return err
		}
		if took := time.Since(begun); took > d.o.BusyTimeout {
			t.Errorf("the sweep took %s", took)
		}
		d.enqueue(t, 1)
		_, err := record(s, "t", id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	if pages, copied := d.log(t); copied != pages {
		t.Errorf("after the reader: %d of %d pages are copied", copied, pages)
	}
}
