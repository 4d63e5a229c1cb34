package abi

// The outcome classes, as they stand in FailedTry, HistoryTry and Tried. The
// set is closed: a new one needs a new Version.
const (
	ClassOK                 = "ok"
	ClassUpstreamStatus     = "upstream_status"  // the upstream answered with an error status
	ClassUpstreamTimeout    = "upstream_timeout" // no first event, no next event, or too long in total
	ClassUpstreamNetwork    = "upstream_network" // not reached, or cut
	ClassUpstreamInvalid    = "upstream_invalid" // an answer that cannot be read
	ClassRateLimited        = "rate_limited"     // 429, or refused by a limit of the host
	ClassGuestTrap          = "guest_trap"
	ClassGuestFuel          = "guest_fuel"
	ClassGuestDeadline      = "guest_deadline"
	ClassGuestMemory        = "guest_memory"
	ClassGuestDepth         = "guest_depth"
	ClassGuestOutput        = "guest_output"
	ClassGuestDenied        = "guest_denied"
	ClassGuestError         = "guest_error" // FailedTry.Code holds the fail code's name, if one was given
	ClassGuestInvalidOutput = "guest_invalid_output"
	ClassGuestThrottled     = "guest_throttled"    // refused by a rate or budget before it began
	ClassPluginUnavailable  = "plugin_unavailable" // not loaded, or cannot be instantiated
	ClassCanceled           = "canceled"
	ClassDeadline           = "deadline"
	ClassWorkerLost         = "worker_lost"
	ClassStepAbandoned      = "step_abandoned"
	ClassHostError          = "host_error"
)
