package tool

import (
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

//go:wasmexport tool_call
func toolCall() int32 { return guest.Process().Enter(abi.ExportToolCall, guest.Imports{}) }
