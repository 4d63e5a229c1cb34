package policy

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// The bounds of a route answer.
const (
	minTimeout    = time.Second
	maxTimeout    = time.Hour
	maxRejectWait = 24 * time.Hour
	maxReason     = 200 // bytes
	maxMessage    = 512 // bytes
)

// The codes of a rejection that names none of its own.
const (
	codeRejected = "rejected_by_policy"
	codeNoTarget = "no_target"
)

var rejectCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// Route returns the targets to try, in order, or a rejection: never neither,
// never both. Targets are of q.Candidates, each once. V, bounds and the cut of
// the question are filled in here.
func (d *Decider) Route(ctx context.Context, q abi.RouteQuestion) (abi.RouteAnswer, Decision) {
	q = fitRoute(q)
	if len(q.Candidates) == 0 { // nothing to decide
		ans := noTarget()
		dec := Decision{Kind: abi.KindRoute, Question: used(q), Answer: used(ans), Generation: Builtin}
		d.count(dec, false)
		return ans, dec
	}
	var ans abi.RouteAnswer
	var clamped bool
	dec, ok := d.ask(ctx, &d.route, abi.KindRoute, Question{Tenant: q.Request.Tenant, Seed: q.Seed, NowMS: q.NowMS}, q, func(text []byte) bool {
		var valid bool
		ans, clamped, valid = takeRoute(text, q)
		return valid
	})
	if !ok {
		ans, clamped = BuiltinRoute(q), false
	}
	dec.Answer = used(ans)
	d.count(dec, clamped)
	if clamped {
		d.warn(msgClamped, dec.Kind, "answer", dec.Generation)
	}
	return ans, dec
}

func noTarget() abi.RouteAnswer {
	return abi.RouteAnswer{V: abi.Version, Reason: "no candidates", Reject: &abi.Reject{
		Status: http.StatusServiceUnavailable, Code: codeNoTarget, Message: "No upstream serves this model.",
	}}
}

// takeRoute reads and clamps a module's answer; not valid: it is nonsense.
func takeRoute(text []byte, q abi.RouteQuestion) (ans abi.RouteAnswer, clamped, valid bool) {
	if json.Unmarshal(text, &ans) != nil || ans.V != abi.Version {
		return ans, false, false
	}
	if reason := line(ans.Reason, maxReason); reason != ans.Reason {
		ans.Reason, clamped = reason, true
	}
	if ans.Reject != nil {
		if len(ans.Targets) > 0 || ans.Reject.Status < 400 || ans.Reject.Status > 599 {
			return ans, false, false
		}
		ans.TimeoutMS = 0
		return ans, clampReject(ans.Reject) || clamped, true
	}
	targets := make([]string, 0, len(ans.Targets))
	for _, t := range ans.Targets {
		known := slices.ContainsFunc(q.Candidates, func(c abi.Candidate) bool { return c.Target == t })
		if known && !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	if len(targets) == 0 {
		return ans, false, false
	}
	clamped = clamped || len(targets) != len(ans.Targets)
	ans.Targets = targets
	if ms := clampTimeout(ans.TimeoutMS, q.Request.DeadlineInMS); ms != ans.TimeoutMS {
		ans.TimeoutMS, clamped = ms, true
	}
	return ans, clamped, true
}

// clampTimeout keeps 0, which means the host's own limit; other timeouts lie
// between minTimeout and maxTimeout and not past the deadline.
func clampTimeout(ms, deadline int64) int64 {
	if ms <= 0 {
		return 0
	}
	ms = min(max(ms, minTimeout.Milliseconds()), maxTimeout.Milliseconds())
	if deadline > 0 {
		ms = min(ms, deadline)
	}
	return ms
}

func clampReject(r *abi.Reject) (clamped bool) {
	was := *r
	if !rejectCode.MatchString(r.Code) {
		r.Code = codeRejected
	}
	if r.Message = line(r.Message, maxMessage); r.Message == "" {
		r.Message = "The routing policy rejected the request."
	}
	r.RetryAfterMS = min(max(r.RetryAfterMS, 0), maxRejectWait.Milliseconds())
	return *r != was
}

// BuiltinRoute orders the candidates: those that can take a call before those
// that are full, cooling down or unhealthy, those not tried yet before those
// that failed, and among equals at random by weight, where load and errors
// take weight away. The same question gives the same answer.
func BuiltinRoute(q abi.RouteQuestion) abi.RouteAnswer {
	if len(q.Candidates) == 0 {
		return noTarget()
	}
	type ranked struct {
		target string
		rank   int
		draw   float64
	}
	random := stream(q.Seed)
	all := make([]ranked, len(q.Candidates))
	for i, c := range q.Candidates {
		r := ranked{target: c.Target, draw: math.Inf(1)}
		if slices.ContainsFunc(q.Tried, func(t abi.Tried) bool { return t.Target == c.Target }) {
			r.rank++
		}
		if c.Limit > 0 && c.InFlight >= c.Limit {
			r.rank += 2
		}
		if !c.Healthy || c.CooldownMS > 0 {
			r.rank += 4
		}
		// The smallest of exponential draws with rates w is any of them with
		// probability w / sum of w; the rest follow by the same rule.
		if u, w := random.float(), effective(c); w > 0 {
			r.draw = -math.Log(1-u) / w
		}
		all[i] = r
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		switch {
		case a.rank != b.rank:
			return a.rank - b.rank
		case a.draw < b.draw:
			return -1
		case a.draw > b.draw:
			return 1
		}
		return 0
	})
	ans := abi.RouteAnswer{V: abi.Version, Reason: "weighted", Targets: make([]string, len(all))}
	for i, r := range all {
		ans.Targets[i] = r.target
	}
	return ans
}

// effective is the weight of c less what load and errors take.
func effective(c abi.Candidate) float64 {
	w := c.Weight / float64(1+c.InFlight)
	return w * max(1-c.ErrorRate, 0.05)
}

// stream is splitmix64: a small generator whose every seed gives a good
// sequence.
type stream uint64

func (s *stream) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// float returns a number from 0 to below 1.
func (s *stream) float() float64 { return float64(s.next()>>11) / (1 << 53) }
