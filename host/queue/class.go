package queue

// Class is how a try of a step, or a request, ended. The set is closed; it is
// used on steps, in metrics and in the questions to policies.
type Class string

// The classes.
const (
	OK                 Class = "ok"
	UpstreamStatus     Class = "upstream_status"
	UpstreamTimeout    Class = "upstream_timeout"
	UpstreamNetwork    Class = "upstream_network"
	UpstreamInvalid    Class = "upstream_invalid"
	RateLimited        Class = "rate_limited"
	GuestTrap          Class = "guest_trap"
	GuestFuel          Class = "guest_fuel"
	GuestDeadline      Class = "guest_deadline"
	GuestMemory        Class = "guest_memory"
	GuestDepth         Class = "guest_depth"
	GuestOutput        Class = "guest_output"
	GuestDenied        Class = "guest_denied"
	GuestError         Class = "guest_error"
	GuestInvalidOutput Class = "guest_invalid_output"
	GuestThrottled     Class = "guest_throttled"
	PluginUnavailable  Class = "plugin_unavailable"
	ClassCanceled      Class = "canceled"
	ClassDeadline      Class = "deadline"
	WorkerLost         Class = "worker_lost"
	StepAbandoned      Class = "step_abandoned"
	HostError          Class = "host_error"
)

// CodeClientGone is the code of a request that was canceled since the client that
// waited for it went away.
const CodeClientGone = "client_gone"

// Classes returns the closed set.
func Classes() []Class {
	return []Class{
		OK, UpstreamStatus, UpstreamTimeout, UpstreamNetwork, UpstreamInvalid, RateLimited,
		GuestTrap, GuestFuel, GuestDeadline, GuestMemory, GuestDepth, GuestOutput, GuestDenied,
		GuestError, GuestInvalidOutput, GuestThrottled, PluginUnavailable, ClassCanceled,
		ClassDeadline, WorkerLost, StepAbandoned, HostError,
	}
}
