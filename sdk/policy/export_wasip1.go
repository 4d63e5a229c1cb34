package policy

import (
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

//go:wasmexport route
func route() int32 { return guest.Process().Enter(abi.ExportRoute, guest.Imports{}) }

//go:wasmexport retry
func retry() int32 { return guest.Process().Enter(abi.ExportRetry, guest.Imports{}) }
