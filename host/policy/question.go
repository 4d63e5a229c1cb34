package policy

import (
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
)

// What a question may hold, so that a module's input has a bound that no client
// can move.
const (
	maxInt          = 1<<53 - 1 // the largest integer that every JSON reader keeps
	maxMetadata     = 16
	maxMetadataKey  = 64  // bytes
	maxMetadataText = 512 // bytes
	maxModalities   = 8
	maxName         = 256 // bytes
	maxPast         = 64  // entries of tried and history: the latest
	maxAnswer       = 64 << 10
)

// fitRoute makes q fit for a module. It changes no slice or map of the caller.
func fitRoute(q abi.RouteQuestion) abi.RouteQuestion {
	q.V = abi.Version
	q.NowMS, q.Seed = whole(q.NowMS), q.Seed&maxInt
	q.Request = fitRequest(q.Request)
	q.Candidates = fitCandidates(q.Candidates)
	q.Tried = slices.Clone(latest(q.Tried))
	for i := range q.Tried {
		q.Tried[i].Status = max(0, q.Tried[i].Status)
	}
	return q
}

// fitRetry makes q fit for a module.
func fitRetry(q abi.RetryQuestion) abi.RetryQuestion {
	q.V = abi.Version
	q.NowMS, q.Seed = whole(q.NowMS), q.Seed&maxInt
	q.Request = fitRequest(q.Request)
	q.Step.Tool = cut(q.Step.Tool, maxName)
	q.Failures, q.MaxFailures = max(0, q.Failures), max(0, q.MaxFailures)
	q.DeadlineInMS = whole(q.DeadlineInMS)
	q.Outcome.Code = cut(q.Outcome.Code, maxName)
	q.Outcome.RetryAfterMS = min(max(q.Outcome.RetryAfterMS, -1), maxInt)
	q.History = slices.Clone(latest(q.History))
	for i := range q.History {
		q.History[i].DelayMS = whole(q.History[i].DelayMS)
	}
	return q
}

func fitRequest(r abi.RequestInfo) abi.RequestInfo {
	r.ID, r.Tenant = cut(r.ID, maxName), cut(r.Tenant, maxName)
	r.Path, r.Model, r.Tier = cut(r.Path, maxName), cut(r.Model, maxName), cut(r.Tier, maxName)
	r.Failures, r.ToolCount = max(0, r.Failures), max(0, r.ToolCount)
	r.AgeMS, r.DeadlineInMS = whole(r.AgeMS), whole(r.DeadlineInMS)
	r.InputBytes, r.MaxOutputTokens = whole(r.InputBytes), whole(r.MaxOutputTokens)
	r.Modalities = slices.Clone(r.Modalities[:min(len(r.Modalities), maxModalities)])
	for i, m := range r.Modalities {
		r.Modalities[i] = cut(m, maxMetadataKey)
	}
	r.Metadata = fitMetadata(r.Metadata)
	return r
}

// fitMetadata keeps the first keys in sorted order, so that the same request
// gives the same question.
func fitMetadata(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		if len(k) <= maxMetadataKey { // a cut key would be another key
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	kept := make(map[string]string, maxMetadata)
	for _, k := range keys[:min(len(keys), maxMetadata)] {
		kept[k] = cut(m[k], maxMetadataText)
	}
	return kept
}

// fitCandidates drops repeated targets and, over abi.MaxCandidates, those with
// the least weight; the order stays.
func fitCandidates(all []abi.Candidate) []abi.Candidate {
	kept := make([]abi.Candidate, 0, len(all))
	seen := make(map[string]bool, len(all))
	for _, c := range all {
		if seen[c.Target] {
			continue
		}
		seen[c.Target] = true
		c.Weight, c.LatencyMS = finite(c.Weight), finite(c.LatencyMS)
		c.ErrorRate = min(finite(c.ErrorRate), 1)
		c.InFlight, c.Limit, c.CooldownMS = max(0, c.InFlight), max(0, c.Limit), whole(c.CooldownMS)
		kept = append(kept, c)
	}
	if len(kept) <= abi.MaxCandidates {
		return kept
	}
	order := make([]int, len(kept))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case kept[a].Weight > kept[b].Weight:
			return -1
		case kept[a].Weight < kept[b].Weight:
			return 1
		}
		return 0
	})
	order = order[:abi.MaxCandidates]
	slices.Sort(order)
	heaviest := make([]abi.Candidate, len(order))
	for i, at := range order {
		heaviest[i] = kept[at]
	}
	return heaviest
}

// latest returns the last entries of a history.
func latest[T any](all []T) []T { return all[max(0, len(all)-maxPast):] }

// whole returns n as an integer of the envelopes, from 0.
func whole(n int64) int64 { return min(max(n, 0), maxInt) }

// finite returns f, or 0 for what JSON cannot write or no rule can use.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0
	}
	return f
}

// cut returns at most n bytes of s, whole runes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// line returns a policy's text fit for one line of a log or an error: printable
// and at most n bytes.
func line(s string, n int) string {
	return cut(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(cut(s, n), "")), n)
}
