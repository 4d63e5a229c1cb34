package plugintest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// patience is the wall clock of the kit's questions. Fuel is exact, so it is
// fuel that bounds them, however busy the machine is.
const patience = time.Minute

// policy asks a policy every row of a decision table, and questions of the
// kit's own, three times on each of two images: answers and fuel must be the
// same.
func (k *kit) policy(kind string, decisions []PolicyCase) {
	c := LargestQuestion(kind)
	entry := c.Entry
	if k.asked("purity of "+kind, entry, c.Input) != nil {
		half := plugins.DefaultLimits(entry).Fuel / 2
		c.Limits.Fuel = half
		if res := k.call(0, c); res.Class != plugins.OK {
			k.problem("budget of "+kind, "the largest question ends in %s with half of the budget (%d fuel): %s",
				res.Class, half, res.Detail)
		}
	}
	for _, row := range decisions {
		if kindOf(row.Question) != kind {
			continue
		}
		check := "case " + row.Name
		if got := k.asked(check, entry, row.Question); got != nil && !sameJSON(got, row.Answer) {
			k.problem(check, "got %s, want %s", brief(got), brief(row.Answer))
		}
	}
}

// kindOf tells the two questions apart: only a retry is about a step.
func kindOf(question []byte) string {
	var q struct {
		Step json.RawMessage `json:"step"`
	}
	if json.Unmarshal(question, &q) == nil && q.Step != nil {
		return abi.KindRetry
	}
	return abi.KindRoute
}

// asked asks one question and returns the answer, or nil after a problem.
func (k *kit) asked(check, entry string, input []byte) []byte {
	res, differs := k.repeat(func() plugins.Call { return question(entry, input) })
	if res.Class != plugins.OK {
		k.problem(check, "it ended in %s: %s", res.Class, res.Detail)
		return nil
	}
	if differs != "" {
		k.problem(check, "the same question is not answered the same way: %s: use only the question, its seed and its now_ms", differs)
		return nil
	}
	if err := CheckAnswer(entry, res.Output); err != nil {
		k.problem(check, "%v", err)
		return nil
	}
	return res.Output
}

// LargestQuestion returns the call that asks a policy of a kind the largest
// question there is.
func LargestQuestion(kind string) plugins.Call {
	if kind == abi.KindRetry {
		return question(abi.ExportRetry, encode(LargestRetry()))
	}
	return question(abi.ExportRoute, encode(LargestRoute()))
}

// question returns the call that asks input.
func question(entry string, input []byte) plugins.Call {
	var about struct {
		Seed  int64 `json:"seed"`
		NowMS int64 `json:"now_ms"`
	}
	// What is no JSON has neither; the policy is to say what it thinks of it.
	_ = json.Unmarshal(input, &about)
	return plugins.Call{
		Entry: entry, Input: input, Seed: about.Seed, NowMS: about.NowMS, Limits: plugins.Limits{Wall: patience},
	}
}

// CheckAnswer reports what is wrong with the form of a policy's answer. The
// error holds no word of the guest's.
func CheckAnswer(entry string, answer []byte) error {
	if entry == abi.ExportRoute {
		var a abi.RouteAnswer
		if json.Unmarshal(answer, &a) != nil || a.V != abi.Version {
			return fmt.Errorf(`plugintest: a route question is not answered with {"v":%d,…}`, abi.Version)
		}
		if len(a.Targets) == 0 && a.Reject == nil {
			return fmt.Errorf("plugintest: a route answer names neither a target nor a rejection")
		}
		return nil
	}
	var a abi.RetryAnswer
	if json.Unmarshal(answer, &a) != nil || a.V != abi.Version {
		return fmt.Errorf(`plugintest: a retry question is not answered with {"v":%d,…}`, abi.Version)
	}
	if a.Action != abi.ActionRetry && a.Action != abi.ActionFail {
		return fmt.Errorf("plugintest: a retry answer has another action than %q or %q", abi.ActionRetry, abi.ActionFail)
	}
	return nil
}
