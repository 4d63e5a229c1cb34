package guest

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/plugintest"
)

// asker is a module as a policy.
type asker struct {
	m     *module
	entry string
}

// noAnswer is why a policy did not answer. Its text is the class: closed, and
// without a word of the guest's.
type noAnswer plugins.Class

func (e noAnswer) Error() string { return "guest: policy: " + string(e) }

// Class implements policy.Classed.
func (e noAnswer) Class() queue.Class { return queue.Class(e) }

// Ask implements policy.Asker.
func (a asker) Ask(ctx context.Context, q policy.Question) ([]byte, uint64, error) {
	a.m.hold()
	defer a.m.release()
	r := a.m.plugin.Call(ctx, plugins.Call{
		Entry: a.entry, Input: q.Text, Limits: a.m.limits, Seed: q.Seed, NowMS: q.NowMS,
		Env: capability.Env{Tenant: q.Tenant}, // for the instance; it gives no power
	})
	if r.Class != plugins.OK {
		return nil, r.Usage.Fuel, noAnswer(r.Class)
	}
	return r.Output, r.Usage.Fuel, nil
}

// Generation implements policy.Asker.
func (a asker) Generation() string { return a.m.digest }

// rehearsals is how often a policy may be late: the fuel of a question is the
// same each time, but a busy machine makes anyone late.
const rehearsals = 5

// rehearse asks a policy the largest question before it goes to work: an
// answer must come within half of its fuel and time, and must be one. The
// error holds no word of the guest's.
func (m *module) rehearse(ctx context.Context, role Role) error {
	c := plugintest.LargestQuestion(string(role))
	c.Limits = m.limits
	c.Limits.Fuel, c.Limits.Wall = c.Limits.Fuel/2, c.Limits.Wall/2
	var r plugins.Result
	for range rehearsals {
		if r = m.plugin.Call(ctx, c); r.Class != plugins.Deadline {
			break
		}
	}
	if r.Class != plugins.OK {
		return fmt.Errorf("guest: policy %q does not answer the largest %s question with %d fuel in %s, half of what it has: %s",
			m.descriptor.Name, role, c.Limits.Fuel, c.Limits.Wall, r.Class)
	}
	if err := plugintest.CheckAnswer(c.Entry, r.Output); err != nil {
		return fmt.Errorf("guest: policy %q: %w", m.descriptor.Name, err)
	}
	return nil
}
