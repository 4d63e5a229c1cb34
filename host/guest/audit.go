package guest

import "github.com/casemate/casemate/sdk/abi"

// auditor tells the operator what a call was refused. A guest can ask for the
// same thing many times, so a call leaves at most two lines for each op and
// reason. They hold no word of the guest.
type auditor struct {
	set   *toolset
	m     *module
	info  abi.CallInfo
	times map[refusal]int
}

type refusal struct{ op, reason string }

// refused implements capability.Env.Audit.
func (a *auditor) refused(op, reason string) {
	a.set.catalog.options.Refused(a.m.source.File, op, reason)
	if a.times == nil {
		a.times = map[refusal]int{}
	}
	r := refusal{op, reason}
	a.times[r]++
	if a.times[r] == 1 {
		a.log("capability refused", r)
	}
}

// done tells how often what was refused was asked for again.
func (a *auditor) done() {
	for r, n := range a.times {
		if n > 1 {
			a.log("capability refused again", r, "times", n-1)
		}
	}
}

func (a *auditor) log(message string, r refusal, more ...any) {
	a.set.catalog.options.Audit.Warn(message, append([]any{
		"tenant", a.set.tenant, "plugin", a.m.descriptor.Name, "digest", a.m.digest, "op", r.op, "reason", r.reason,
		"response", a.info.ResponseID, "step", a.info.Step,
	}, more...)...)
}
