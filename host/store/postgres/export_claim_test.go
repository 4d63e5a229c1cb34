package postgres

// Statements are those whose plans are tested, by name.
var Statements = map[string]string{
	"probe": probeModels, "fair": claimFair, "urgent": claimUrgent, "fairOwn": claimFairOwn, "urgentOwn": claimUrgentOwn, "near": claimNear, "slept": wakeSlept, "others": selectOthers,
	"expire": expireRequests, "promote": promoteRequests, "reap": reapRequests, "heal": healLanesOnce,
	"lockOwners": lockOwners, "lockLanes": lockLanes, "lockFreed": lockFreed, "lockGates": lockGates, "change": changeRequests, "letGo": changeRequests, "retry": changeRequests, "wake": wakeLanes,
	"occupyLanes": occupyLanes, "occupyGates": occupyGates, "openGated": openGated, "cancel": cancelRequest,
	"recountLane": recountLane, "recountGate": recountGate,
}

// Guard is what most of them run under.
const Guard = guardLong
