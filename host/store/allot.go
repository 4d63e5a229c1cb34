package store

import (
	"cmp"
	"slices"
	"time"
)

// turn is how long a worker keeps its slot when more workers want one than there
// are. What it began ends by itself, so a turn is longer than some heartbeats.
const turn = 20 * time.Second

// Holding is one worker's part of a target's limit.
type Holding struct {
	Worker int64
	Slots  int // that it has
	Want   int
	// Keep is what it may be using, and so has to be left. Of others than the one
	// that beats it does not count.
	Keep int
}

// Allot returns how many slots of a limit the worker of own has from now on.
// Others are those of the same target that live. Each is entitled to what it
// wants where that is enough for all, and else to as much as any other that
// wants more; where there are fewer slots than such workers, these take turns, by
// the database's clock. A share is not made smaller than Keep, is made larger only
// by slots that are free, and goes down to what it is entitled to at the beat of
// its own worker, which alone knows what it uses.
func Allot(limit int, own Holding, others []Holding, now time.Time) int {
	free := limit
	for _, o := range others {
		free -= o.Slots
	}
	return max(min(own.Keep, own.Slots), min(entitled(limit, own, others, now), free), 0)
}

// Usable returns how many calls the worker of own may begin now, of the slots
// that Allot gives it: no more than it is entitled to. A worker that uses all it
// has so comes down to that as its calls end.
func Usable(limit int, own Holding, others []Holding, now time.Time) int {
	return min(Allot(limit, own, others, now), entitled(limit, own, others, now))
}

// entitled returns the max-min fair part of a limit that own has. What cannot be
// parted evenly stays with those who have it, then goes to the oldest workers.
func entitled(limit int, own Holding, others []Holding, now time.Time) int {
	all := append(slices.Clone(others), own)
	slices.SortFunc(all, func(a, b Holding) int { return cmp.Compare(a.Want, b.Want) })
	for len(all) > 0 && all[0].Want <= limit/len(all) { // there is enough for this one
		if all[0].Worker == own.Worker {
			return own.Want
		}
		limit -= all[0].Want
		all = all[1:]
	}
	isOwn := func(h Holding) bool { return h.Worker == own.Worker }
	if limit < len(all) {
		slices.SortFunc(all, func(a, b Holding) int { return cmp.Compare(a.Worker, b.Worker) })
		first := int(now.UnixMilli() / turn.Milliseconds() * int64(limit) % int64(len(all)))
		if behind := slices.IndexFunc(all, isOwn) - first; (behind+len(all))%len(all) < limit {
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(b.Slots, a.Slots), cmp.Compare(a.Worker, b.Worker))
	})
	part := limit / len(all)
	if slices.IndexFunc(all, isOwn) < limit%len(all) {
		part++
	}
	return part
}
