package postgres

// Statements are those whose plans are tested, by name.
var Statements = map[string]string{
	"probe": probeModels, "fair": claimFair, "urgent": claimUrgent, "fairOwn": claimFairOwn, "urgentOwn": claimUrgentOwn, "near": claimNear, "slept": wakeSlept, "others": selectOthers,
	"expire": expireRequests, "promote": promoteRequests, "reap": reapRequests, "heal": healLanesOnce,
	"lockOwners": lockOwners, "lockLanes": lockLanes, "lockFreed": lockFreed, "lockGates": lockGates, "change": changeRequests, "letGo": changeRequests, "retry": changeRequests, "wake": wakeLanes,
	"occupyLanes": occupyLanes, "occupyGates": occupyGates, "openGated": openGated, "cancel": cancelRequest,
	"lockOnce": lockOnce, "giveOnce": giveOnce, "freeOnce": freeOnce, "removeKeys": removeKeys,
	"lockTalks": lockTalks, "holders": selectHolders, "changeTalks": changeTalks, "append": appendItems,
	"newest": selectNewest, "oldest": selectOldest, "item": selectItem, "addItems": addItems,
	"holdBatch": holdBatch, "openLines": selectOpen, "lines": selectLines, "knownIDs": selectKnown, "lockOpenLines": lockOpenLines,
	"lineResults": selectResults, "updateLines": updateLines, "expireFiles": expireFiles, "giveUpUploads": giveUpUploads,
	"lockGone": lockGone, "lockEndedBatch": lockEndedBatch, "removeLines": removeLines, "removeChunks": removeChunks,
	"listFiles": listFiles + filesDown, "file": selectFile, "deleteFile": deleteFile, "cancelBatch": cancelBatch,
	"batch":       selectBatch + `id = $1 and ($2 = '' or tenant = $2)`,
	"recountLane": recountLane, "recountGate": recountGate,
}

// Guard is what most of them run under.
const Guard = guardLong
