package store

import (
	"cmp"
	"slices"
)

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
// wants more. A share is not made smaller than Keep, is made larger only by
// slots that are free, and goes down to what it is entitled to at the beat of its
// own worker, which alone knows what it uses.
func Allot(limit int, own Holding, others []Holding) int {
	free := limit
	for _, o := range others {
		free -= o.Slots
	}
	return max(min(own.Keep, own.Slots), min(entitled(limit, own, others), free), 0)
}

// Usable returns how many calls the worker of own may begin now, of the slots
// that Allot gives it: no more than it is entitled to. A worker that uses all it
// has so comes down to that as its calls end.
func Usable(limit int, own Holding, others []Holding) int {
	return min(Allot(limit, own, others), entitled(limit, own, others))
}

// entitled returns the max-min fair part of a limit that own has. What cannot be
// parted evenly stays with those who have it, then goes to the oldest workers.
func entitled(limit int, own Holding, others []Holding) int {
	all := append(slices.Clone(others), own)
	slices.SortFunc(all, func(a, b Holding) int { return cmp.Compare(a.Want, b.Want) })
	for len(all) > 0 && all[0].Want <= limit/len(all) { // there is enough for this one
		if all[0].Worker == own.Worker {
			return own.Want
		}
		limit -= all[0].Want
		all = all[1:]
	}
	slices.SortFunc(all, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(b.Slots, a.Slots), cmp.Compare(a.Worker, b.Worker))
	})
	part := limit / len(all)
	if slices.IndexFunc(all, func(h Holding) bool { return h.Worker == own.Worker }) < limit%len(all) {
		part++
	}
	return part
}
