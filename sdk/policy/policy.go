// Package policy is what the author of a routing or retry policy imports. A
// policy is a main package that names itself and registers a pure function
// while it is initialised; main itself is empty and never runs:
//
//	func init() {
//		policy.Plugin("retry-once", "0.1.0", "Tries a failed step once more.")
//		policy.Retry(decide)
//	}
//
//	func decide(q abi.RetryQuestion) (abi.RetryAnswer, error) {
//		if len(q.History) > 0 || q.Outcome.VisibleOutputSent {
//			return policy.Fail("tried enough"), nil
//		}
//		return policy.Again(time.Second, "first failure"), nil
//	}
//
//	func main() {}
//
// A policy is a function of its question: equal questions must give equal
// answers, on any host, whatever was asked before. Time is the question's
// NowMS, chance its Seed (see Rand); a package variable may hold what an init
// function put there and nothing else, and no answer may depend on the order
// of a map. The host clamps each answer, and where a policy fails, the host's
// own policy answers. Before it takes the image that every decision starts
// from, the host asks a made-up question, so that what Go does in a first call
// is done; see WarmUpRoute. Package policy gives no powers: a policy has none.
package policy

import (
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// Plugin names the plugin; version is a semantic version like "0.1.0".
func Plugin(name, version, description string) { guest.Process().Name(name, version, description) }

// Route makes decide the routing policy of the plugin: which targets to try
// for a model call, best first. An error of decide makes the host answer the
// question itself.
func Route(decide func(abi.RouteQuestion) (abi.RouteAnswer, error)) {
	serve(guest.Process(), abi.KindRoute, abi.ExportRoute, func(q abi.RouteQuestion) (abi.RouteAnswer, error) {
		a, err := decide(q)
		a.V = abi.Version
		return a, err
	})
	guest.Process().WarmUp(abi.ExportRoute, false, abi.WarmUp{Route: example(routeExample())})
}

// Retry makes decide the retry policy of the plugin: whether to try a failed
// step again, and after how long. An error of decide makes the host answer
// the question itself.
func Retry(decide func(abi.RetryQuestion) (abi.RetryAnswer, error)) {
	serve(guest.Process(), abi.KindRetry, abi.ExportRetry, func(q abi.RetryQuestion) (abi.RetryAnswer, error) {
		a, err := decide(q)
		a.V = abi.Version
		return a, err
	})
	guest.Process().WarmUp(abi.ExportRetry, false, abi.WarmUp{Retry: example(retryExample())})
}

func serve[Q, A any](r *guest.Registry, kind, export string, decide func(Q) (A, error)) {
	if r.Serves(export) {
		r.Mistake(fmt.Errorf("a second %s policy is registered", kind))
		return
	}
	r.Kind(kind)
	r.Serve(export, func(h guest.Host) error {
		var q Q
		if err := json.Unmarshal(h.Input(), &q); err != nil {
			return fmt.Errorf("%s: question: %w", export, err)
		}
		a, err := decide(q)
		if err != nil {
			return err
		}
		out, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("%s: answer: %w", export, err)
		}
		return h.Write(out)
	})
}
