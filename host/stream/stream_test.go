package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/stream"
)

// from returns events first to last.
func from(first, last int64) []response.Event {
	var events []response.Event
	for i := first; i <= last; i++ {
		events = append(events, response.Event{Seq: i, Data: fmt.Appendf(nil, `{"type":"t","n":%d}`, i)})
	}
	return events
}

// run runs h until the test ends.
func run(t *testing.T, h *stream.Hub) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// read reads up to the event with sequence number last, and checks the order.
func read(t *testing.T, l *stream.Listener, first, last int64) {
	t.Helper()
	for next := first; next <= last; {
		events, err := l.Next(t.Context())
		if err != nil {
			t.Fatalf("Next: got %v, want event %d", err, next)
		}
		for _, e := range events {
			if want := from(next, next)[0]; e.Seq != next || string(e.Data) != string(want.Data) {
				t.Fatalf("got event %d %s, want %d %s", e.Seq, e.Data, next, want.Data)
			}
			next++
		}
	}
}

func wantErr(t *testing.T, l *stream.Listener, want error) {
	t.Helper()
	if events, err := l.Next(t.Context()); !errors.Is(err, want) {
		t.Fatalf("Next: got %d events, %v, want %v", len(events), err, want)
	}
}

func TestMemoryOnly(t *testing.T) {
	for _, logged := range []bool{true, false} {
		t.Run(fmt.Sprint("logged ", logged), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newLog()
				h := stream.NewHub(log, stream.Options{})
				id := queue.NewID()
				l := h.Listen(id, -1) // before it is opened
				defer l.Close()
				got := make(chan struct{})
				go func() {
					defer close(got)
					read(t, l, 0, 9)
					wantErr(t, l, io.EOF)
				}()
				p := h.Open(id, logged)
				for i := range int64(10) {
					p.Publish(from(i, i))
				}
				p.Close(true)
				<-got
				if reads, _ := log.count(); reads != 0 {
					t.Errorf("got %d reads of the log, want none", reads)
				}
			})
		})
	}
}

func TestNoQueryWithoutTails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{})
		run(t, h)
		id := queue.NewID()
		p := h.Open(id, true)
		l := h.Listen(id, -1)
		defer l.Close()
		p.Publish(from(0, 3))
		read(t, l, 0, 3)
		time.Sleep(time.Hour)
		if reads, _ := log.count(); reads != 0 {
			t.Errorf("got %d reads of the log in an idle hour, want none", reads)
		}
		p.Close(true)
	})
}

func TestOneQueryForAllTails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{})
		run(t, h)
		var wg sync.WaitGroup
		var ids []queue.ID
		for range 20 {
			id := queue.NewID()
			ids = append(ids, id)
			log.append(id, from(0, 2)...)
			for range 2 {
				l := h.Listen(id, -1)
				wg.Go(func() {
					defer l.Close()
					read(t, l, 0, 4)
					wantErr(t, l, io.EOF)
				})
			}
		}
		time.Sleep(time.Second)
		before, _ := log.count()
		time.Sleep(time.Second)
		after, cursors := log.count()
		if n := after - before; n < 9 || n > 11 || cursors != len(ids) {
			t.Errorf("got %d reads a second for %d responses, want 10 for %d", n, cursors, len(ids))
		}
		for _, id := range ids {
			log.append(id, from(3, 4)...)
			log.end(id, queue.Completed)
		}
		wg.Wait()
	})
}

func TestLateListenerJoinsLogAndMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{Batch: 4})
		run(t, h)
		id := queue.NewID()
		p := h.Open(id, true)
		log.append(id, from(0, 20)...) // another host's
		log.append(id, from(21, 25)...)
		p.Publish(from(21, 25)) // nobody listens: dropped
		for _, after := range []int64{-1, 0, 7, 24, 25} {
			l := h.Listen(id, after)
			read(t, l, after+1, 25)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d: got %v, want to wait", after, err)
			}
			cancel()
			l.Close()
		}
		l := h.Listen(id, 10)
		defer l.Close()
		log.append(id, from(26, 30)...)
		p.Publish(from(26, 30))
		read(t, l, 11, 30)
		log.end(id, queue.Completed)
		p.Close(true)
		wantErr(t, l, io.EOF)
	})
}

func TestResumedHereWaitsForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{})
		run(t, h)
		id := queue.NewID()
		log.append(id, from(0, 5)...)
		p := h.Open(id, true) // goes on after event 5 and has published nothing yet
		l := h.Listen(id, -1)
		defer l.Close()
		read(t, l, 0, 5)
		go func() {
			time.Sleep(time.Minute)
			log.append(id, from(6, 6)...)
			p.Publish(from(6, 6))
		}()
		read(t, l, 6, 6)
		if reads, _ := log.count(); reads > 2 {
			t.Errorf("got %d reads of the log while it runs here, want 2 at most", reads)
		}
	})
}

func TestLeaseLostGoesOnFromLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{})
		run(t, h)
		id := queue.NewID()
		l := h.Listen(id, -1)
		defer l.Close()
		p := h.Open(id, true)
		log.append(id, from(0, 5)...)
		p.Publish(from(0, 3))
		p.Publish(from(2, 5)) // what was published is not again
		read(t, l, 0, 5)
		p.Close(false)
		fenced := []response.Event{{Seq: 6, Data: []byte("never committed")}}
		p.Publish(fenced)             // a fenced run is not heard
		log.append(id, from(6, 9)...) // by another host
		q := h.Open(id, true)         // and back again
		p.Publish(fenced)
		read(t, l, 6, 9)
		log.append(id, from(10, 12)...)
		q.Publish(from(10, 12))
		read(t, l, 10, 12)
		p.Close(true) // nor is its end
		log.append(id, from(13, 13)...)
		q.Publish(from(13, 13))
		q.Close(true)
		read(t, l, 13, 13)
		wantErr(t, l, io.EOF)
	})
}

func TestFinalByLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{Batch: 3})
		run(t, h)
		id := queue.NewID()
		log.append(id, from(0, 5)...) // a multiple of Batch
		log.end(id, queue.Canceled)
		l := h.Listen(id, -1)
		read(t, l, 0, 5)
		wantErr(t, l, io.EOF)
		wantErr(t, l, io.EOF)
		l.Close()
		l = h.Listen(id, 100) // beyond the end
		defer l.Close()
		wantErr(t, l, io.EOF)
	})
}

func TestSlowListenerOfLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{MaxBytes: 1000, Batch: 7})
		run(t, h)
		id := queue.NewID()
		l := h.Listen(id, -1)
		defer l.Close()
		p := h.Open(id, true)
		for i := range int64(500) {
			log.append(id, from(i, i)...)
			p.Publish(from(i, i))
		}
		read(t, l, 0, 499)
		if reads, _ := log.count(); reads == 0 {
			t.Error("got no read of the log: memory is not bounded")
		}
		log.end(id, queue.Completed)
		p.Close(true)
		wantErr(t, l, io.EOF)
	})
}

func TestUnlogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := stream.NewHub(newLog(), stream.Options{MaxBytes: 1000})
		id := queue.NewID()
		slow, fast := h.Listen(id, -1), h.Listen(id, -1)
		defer slow.Close()
		defer fast.Close()
		p := h.Open(id, false)
		for i := range int64(500) {
			p.Publish(from(i, i))
			read(t, fast, i, i)
		}
		wantErr(t, slow, stream.ErrOverrun)
		p.Publish(from(500, 501))
		p.Close(true)
		p.Close(false) // only the first counts
		p.Publish(from(502, 502))
		read(t, fast, 500, 501)
		wantErr(t, fast, io.EOF)

		id = queue.NewID()
		l := h.Listen(id, -1)
		defer l.Close()
		p = h.Open(id, false)
		p.Publish(from(0, 1))
		p.Close(false)
		read(t, l, 0, 1)
		wantErr(t, l, io.ErrUnexpectedEOF)
	})
}

func TestUnknownGapAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		h := stream.NewHub(log, stream.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()

		l := h.Listen(queue.NewID(), -1)
		began := time.Now()
		wantErr(t, l, queue.ErrNotFound)
		if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("got ErrNotFound after %v, want 10 s", d)
		}
		l.Close()

		id := queue.NewID()
		log.append(id, from(5, 9)...) // the older ones are gone
		l = h.Listen(id, 2)
		wantErr(t, l, stream.ErrGap)
		l.Close()

		log.fail(errors.New("away"))
		l = h.Listen(id, 4)
		defer l.Close()
		go func() {
			time.Sleep(time.Minute)
			log.fail(nil)
		}()
		read(t, l, 5, 9)
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		wantErr(t, l, stream.ErrStopped)
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// TestHammer moves responses between here and elsewhere under many listeners:
// each must see each event once, in order.
func TestHammer(t *testing.T) {
	const (
		responses = 8
		listeners = 6
		last      = 400
	)
	log := newLog()
	h := stream.NewHub(log, stream.Options{Poll: time.Millisecond, Batch: 16, MaxBytes: 2000})
	run(t, h)
	var wg sync.WaitGroup
	for range responses {
		id := queue.NewID()
		log.append(id)
		wg.Go(func() { hammer(h, log, id, last) })
		for i := range listeners {
			wg.Go(func() {
				for after := int64(-1); after < last; after += 150 {
					l := h.Listen(id, after)
					read(t, l, after+1, last)
					if i%2 == 0 {
						wantErr(t, l, io.EOF)
					}
					l.Close()
				}
			})
		}
	}
	wg.Wait()
	if n := h.Topics(); n != 0 {
		t.Errorf("got %d responses kept after all is over, want 0", n)
	}
}

func TestMemoryIsLetGo(t *testing.T) {
	h := stream.NewHub(newLog(), stream.Options{MaxBytes: 1000})
	id := queue.NewID()
	p := h.Open(id, true)
	p.Publish(from(0, 99))
	if n := h.Bytes(); n != 0 {
		t.Errorf("nobody listens: got %d bytes kept, want 0", n)
	}
	l := h.Listen(id, 99)
	p.Publish(from(100, 199))
	if n := h.Bytes(); n == 0 || n > 1000 {
		t.Errorf("somebody listens: got %d bytes kept, want 1 to 1000", n)
	}
	l.Close()
	if n := h.Bytes(); n != 0 {
		t.Errorf("the listener left: got %d bytes kept, want 0", n)
	}
	p.Close(true)
	if n := h.Topics(); n != 0 {
		t.Errorf("got %d responses kept, want 0", n)
	}
}

func hammer(h *stream.Hub, log *fakeLog, id queue.ID, last int64) {
	var p *stream.Producer
	for i := int64(0); i <= last; {
		n := min(i+rand.Int64N(5), last)
		events := from(i, n)
		log.append(id, events...)
		if p != nil {
			p.Publish(events)
		}
		i = n + 1
		if rand.IntN(20) > 0 {
			continue
		}
		if p != nil {
			p.Close(false)
			p = nil
		} else {
			p = h.Open(id, true)
		}
	}
	log.end(id, queue.Completed)
	if p != nil {
		p.Close(true)
	}
}
