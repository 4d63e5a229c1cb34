package doctor

import (
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func lanes(r store.Report) []Finding {
	full := map[string]bool{} // tenants whose gate has no room
	for _, g := range r.Gates {
		full[g.Tenant] = g.Cap > 0 && room(g.Cap, g.Reserve, g.Slots) <= 0
	}
	var found []Finding
	for _, l := range r.Lanes {
		who := fmt.Sprintf("lane %q %q", l.Tenant, l.Model)
		if l.Cap > 0 {
			found = append(found, counters(who, l.Cap, l.Slots)...)
		}
		free := l.Cap == 0 || room(l.Cap, l.Reserve, l.Slots) > 0
		switch {
		case l.Pending == 0:
		case l.Parked && l.Wait <= 0 && free && !full[l.Tenant]:
			found = append(found, Finding{
				Level: Warn, What: fmt.Sprintf("%s is parked, though it has room and %s", who, requests(l.Pending)),
				Why: "it is not claimed from; the next sweep should wake it",
				Do:  "look again in a few seconds; if it stays, see the logs of the hosts for errors of sweep",
			})
		case !l.Ready:
			found = append(found, Finding{
				Level: Warn, What: fmt.Sprintf("%s sleeps, though it has %s", who, requests(l.Pending)),
				Why: "it is not claimed from; the next sweep should wake it",
				Do:  "look again in a few seconds; if it stays, see the logs of the hosts for errors of sweep",
			})
		}
	}
	return or(atMost(found, "lanes in disorder"), "%s: counters equal rows", count(len(r.Lanes), "lane"))
}

func gates(r store.Report) []Finding {
	var found []Finding
	for _, g := range r.Gates {
		if g.Cap > 0 {
			found = append(found, counters(fmt.Sprintf("the gate of tenant %q", g.Tenant), g.Cap, g.Slots)...)
		}
	}
	return or(atMost(found, "gates in disorder"), "%s: counters equal rows", count(len(r.Gates), "gate"))
}

// room is how many queued requests more may run; see queue.Reserve.
func room(limit int, r queue.Reserve, s store.Slots) int {
	return min(limit-s.Running, limit-r.Realtime-(s.Running-s.Realtime))
}

// counters compares the counters of a lane or gate with the rows, and with its
// cap.
func counters(who string, limit int, s store.Slots) []Finding {
	var found []Finding
	if s.Running != s.Owned || s.Realtime != s.OwnedRealtime {
		found = append(found, Finding{
			Level: Bad,
			What:  fmt.Sprintf("%s counts %d running (%d realtime), and %d (%d) are", who, s.Running, s.Realtime, s.Owned, s.OwnedRealtime),
			Why:   "it gives out too few slots, or too many",
			Do:    "restart a host: it sets the caps that are configured, and that counts anew. Then report it: this must not happen",
		})
	}
	if s.Owned > limit {
		found = append(found, Finding{
			Level: Warn, What: fmt.Sprintf("%s runs %d, more than its cap of %d", who, s.Owned, limit),
			Why: "right after the cap was lowered that is as it should be, at any other time not",
			Do:  "nothing if you just lowered it: no more start until enough have ended. Else report it",
		})
	}
	return found
}

func targets(r store.Report) []Finding {
	var found []Finding
	for _, t := range r.Targets {
		if t.Limit > 0 && t.Shared > t.Limit {
			found = append(found, Finding{
				Level: Bad, What: fmt.Sprintf("hosts share %d slots of target %q, more than its limit of %d", t.Shared, t.Target, t.Limit),
				Why: "the upstream may get more calls at once than it takes",
				Do:  "if the limit was lowered just now, or hosts are configured with different ones, look again in a minute with the same limit everywhere; else report it",
			})
		}
	}
	return or(atMost(found, "targets in disorder"), "%s: shares within limits", count(len(r.Targets), "target"))
}
