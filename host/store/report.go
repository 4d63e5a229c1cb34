package store

import (
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Stats are counts for tests, metrics and operators, all of one moment.
type Stats struct {
	States map[queue.State]int
	Lanes  []LaneStat // by tenant, model
	Gates  []GateStat // by tenant
}

// Slots are the counters of a lane or a gate beside the rows that they count.
type Slots struct {
	Running  int // the counter; kept only where there is a cap
	Realtime int // of Running, those of realtime requests
	// Owned are the rows that occupy a slot: claimed, processing, or canceled
	// and not let go of, those escalated into a lane among them.
	Owned int
	// OwnedRealtime are those of realtime requests.
	OwnedRealtime int
}

// LaneStat is one lane with its counters.
type LaneStat struct {
	queue.Lane
	Slots
	Pending int
	Waiting int
	Ready   bool
	Parked  bool          // for whatever reason
	Wait    time.Duration // how long it is parked yet by a rate limit
	VTime   float64
	Head    time.Time // order of its first claimable request; zero: it has none
}

// GateStat is one tenant's gate with its counters.
type GateStat struct {
	queue.Gate
	Slots
}

// Report is what a doctor looks at.
type Report struct {
	Database string // product and version, "PostgreSQL 15.18"
	Schema   int    // version
	Stats
	Workers []WorkerStat // by id
	Targets []TargetStat // by target
	// OldestSnapshot is the age of the oldest transaction that keeps dead rows
	// from being removed, and Holder who has it; "": nobody, or not said.
	OldestSnapshot time.Duration
	Holder         string
	Tables         []TableStat
	Indexes        []IndexStat
	// Oldest is the age of the pending request that came first; 0: none pends.
	Oldest time.Duration
	// Overdue are waiting requests whose not-before, and pending or waiting ones
	// whose deadline, passed more than 10 s ago: nobody sweeps.
	Overdue int
	// Orphans are requests that a worker holds which is reaped or gone.
	Orphans int
	// Deaf is why other hosts' hints do not arrive, which makes work start, and
	// running requests stop, later; "": they do, or there are no other hosts.
	Deaf string
}

// WorkerStat is one worker.
type WorkerStat struct {
	ID       int64
	Host     string
	Version  string
	Started  time.Time
	Left     time.Duration // of its lease; negative: over for so long
	Draining bool
	Reaped   bool
	Owned    int // rows that name it
}

// TargetStat is one upstream target as the fleet shares it.
type TargetStat struct {
	Target   string
	Limit    int
	Shared   int // slots that workers have together
	Cooldown time.Duration
}

// TableStat is one table.
type TableStat struct {
	Name  string
	Rows  int64 // as the database estimates
	Dead  int64
	Bytes int64
	// Vacuumed is when dead rows were last removed; zero: never, or not said.
	Vacuumed time.Time
}

// IndexStat is one index.
type IndexStat struct {
	Name, Table string
	Bytes       int64
	Valid       bool // false: it is not used, and must be built anew
	Scans       int64
}
