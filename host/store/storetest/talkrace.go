package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var talkRaceCases = []testCase{
	{"JoinsRaced", testRaceJoins},
	{"JoinRacedAgainstAppend", testRaceJoinAppend},
	{"JoinRacedAgainstCancel", testRaceJoinCancel},
	{"JoinRacedAgainstDelete", testRaceJoinDelete},
	{"AppendRacedAgainstDelete", testRaceAppendDelete},
	{"AppendRacedAgainstCancel", testRaceAppendCancel},
	{"ItemsRaced", testRaceItems},
	{"ConversationsRacedInBatches", testRaceTalks},
}

// answering joins a conversation on a worker and returns how to fence the end.
func (h *harness) answering(id queue.ID, worker int64) queue.Fence {
	h.Helper()
	w := joins(id, h.conversation(id).Version, by(worker))
	h.must(w)
	return w.Fenced()
}

// stop lets nothing go on after a round.
func (h *harness) stop(id queue.ID, attempt int) {
	h.Helper()
	if h.cancel(id) && attempt > 0 {
		h.must(store.Write{Fence: queue.Fence{ID: id, Attempt: attempt, State: queue.Canceled}, LetGo: true})
	}
}

func testRaceJoins(h *harness) {
	for round := range rounds {
		id := h.talk(1)
		var errs [4]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = h.try(joins(id, 1)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			h.wantBusy(err, id, false)
		}
		if won != 1 {
			h.Errorf("round %d: %d joined, want 1", round, won)
		}
	}
}

// testRaceJoinAppend: who joins while the response before ends either finds it
// under way, or what it brought.
func testRaceJoinAppend(h *harness) {
	w := h.worker()
	for round := range rounds {
		id := h.talk(1)
		f := h.answering(id, w)
		version := h.conversation(id).Version
		next := joins(id, version)
		var appended, joined error
		race(round, func() { appended = h.try(brings(f, id, said("n", 2)...)) }, func() { joined = h.try(next) })
		var b *store.ConversationBusy
		if appended != nil || !errors.As(joined, &b) {
			h.Fatalf("round %d: appended %v, joined %v, want one that is busy", round, appended, joined)
		}
		h.wantItems(id, "i0", "n0", "n1")
		h.join(id)
	}
}

func testRaceJoinCancel(h *harness) {
	w := h.worker()
	for round := range rounds {
		id := h.talk(1)
		f := h.answering(id, w)
		next := joins(id, h.conversation(id).Version)
		var joined error
		race(round, func() { h.stop(f.ID, f.Attempt) }, func() { joined = h.try(next) })
		if joined != nil {
			h.wantBusy(joined, id, false)
			h.join(id)
		}
	}
	h.wantExact()
}

func testRaceJoinDelete(h *harness) {
	for round := range rounds {
		id := h.talk(1)
		next := joins(id, 1)
		var joined, deleted error
		race(round, func() { deleted = h.d.DeleteConversation(h.Context(), tenant, id) }, func() { joined = h.try(next) })
		if deleted != nil {
			h.Errorf("round %d: DeleteConversation: %v", round, deleted)
		}
		if joined != nil {
			h.wantUnknown("joined", joined)
			h.wantNone(next.Insert.ID)
		}
	}
}

// testRaceAppendDelete: a conversation that goes never keeps a response from
// ending, nor leaves items behind.
func testRaceAppendDelete(h *harness) {
	w := h.worker()
	for round := range rounds {
		id := h.talk(2)
		f := h.answering(id, w)
		var appended, deleted error
		race(round, func() { appended = h.try(brings(f, id, said("n", 2)...)) },
			func() { deleted = h.d.DeleteConversation(h.Context(), tenant, id) })
		if appended != nil || deleted != nil {
			h.Errorf("round %d: appended %v, deleted %v", round, appended, deleted)
		}
		h.wantState(f.ID, queue.Completed)
		if err := h.d.CreateConversation(h.Context(), store.Conversation{ID: id, Tenant: tenant}, nil); err != nil {
			h.Fatal(err)
		}
		h.wantItems(id)
	}
}

func testRaceAppendCancel(h *harness) {
	w := h.worker()
	for round := range rounds {
		id := h.talk(1)
		f := h.answering(id, w)
		var appended error
		race(round, func() { appended = h.try(brings(f, id, said("n", 1)...)) }, func() { h.stop(f.ID, f.Attempt) })
		want := []string{"i0"}
		if appended == nil {
			want = append(want, "n0")
		} else if !errors.Is(appended, queue.ErrLeaseLost) {
			h.Errorf("round %d: %v", round, appended)
		}
		h.wantItems(id, want...)
	}
	h.wantExact()
}

// testRaceItems: items that many add and remove at once keep one order, and each
// change is a version.
func testRaceItems(h *harness) {
	const hosts, each = 4, 15
	id := h.talk(0)
	var changes atomic.Int64
	var wg sync.WaitGroup
	for host := range hosts {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("%d-%d", host, i)
				if err := h.d.AddItems(h.Context(), tenant, id, []store.Item{{ID: name, Data: []byte("{}")}, {ID: name + "x", Data: []byte("{}")}}); err != nil {
					h.Errorf("AddItems: %v", err)
				}
				if _, err := h.d.DeleteItem(h.Context(), tenant, id, name+"x"); err != nil {
					h.Errorf("DeleteItem: %v", err)
				}
				changes.Add(3)
			}
		})
	}
	wg.Wait()
	got := h.items(id, 9)
	if len(got) != hosts*each {
		h.Errorf("got %d items, want %d", len(got), hosts*each)
	}
	for host := range hosts {
		last := -1
		for i := range each {
			at := slices.Index(got, fmt.Sprintf("%d-%d", host, i))
			if at <= last {
				h.Errorf("item %d of %d is at %d, after %d", i, host, at, last)
			}
			last = at
		}
	}
	if v := h.conversation(id).Version; v != changes.Load() {
		h.Errorf("version %d after %d changes", v, changes.Load())
	}
}

// testRaceTalks writes batches that lock the same conversations, lanes and
// requests in many orders: nobody waits in a circle.
func testRaceTalks(h *harness) {
	h.capped(1000)
	w := h.worker()
	const talks = 8
	var ids []queue.ID
	for range talks {
		ids = append(ids, h.talk(0))
	}
	var appended atomic.Int64
	var wg sync.WaitGroup
	for host := range 4 {
		wg.Go(func() {
			for round := range 10 {
				var writes []store.Write
				for i := range talks {
					at := (i*(2*host+1) + round) % talks
					r := store.Write{Insert: request(by(w))}
					item := store.Item{ID: fmt.Sprint(host, "-", round), Data: []byte("{}")}
					writes = append(writes, r, brings(r.Fenced(), ids[at], item))
				}
				results, err := h.d.Write(h.Context(), writes)
				if err := errors.Join(append(results, err)...); err != nil {
					h.Errorf("Write: %v", err)
					return
				}
				appended.Add(talks)
				if _, err := h.d.SetMetadata(h.Context(), tenant, ids[round%talks], []byte("{}")); err != nil {
					h.Errorf("SetMetadata: %v", err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, id := range ids {
		sum += len(h.items(id, 50))
	}
	if int64(sum) != appended.Load() {
		h.Errorf("got %d items, want %d", sum, appended.Load())
	}
	h.wantExact()
}
