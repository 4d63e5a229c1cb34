package postgres

// GuardBeat is what a heartbeat that names targets sets.
const GuardBeat = guardBeat
