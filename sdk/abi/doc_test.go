package abi_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/casemate/casemate/sdk/abi"
)

// ABI.md is the contract for readers of other languages: what this package
// names must stand in it, with its number.
func TestDocumentIsComplete(t *testing.T) {
	data, err := os.ReadFile("ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	wants := []string{
		"Module name `" + abi.Module + "`", "`" + abi.Section + "`", fmt.Sprintf("At most %d candidates", abi.MaxCandidates),
		"first 4,096 bytes", "1 to 512 bytes of UTF-8", "at most 65,536 bytes", "at most 100 and 1 MiB",
	}
	for _, name := range []string{
		abi.ImportInputLen, abi.ImportInputRead, abi.ImportOutputWrite, abi.ImportFail, abi.ImportLog, abi.ImportEmit, abi.ImportCall,
		abi.ImportReplyRead, abi.ImportStreamRead, abi.ImportStreamClose, abi.ImportBudget,
	} {
		wants = append(wants, "| `"+name+"` |", "**`"+name+"`**")
	}
	for _, name := range []string{
		abi.ExportMemory, abi.ExportMarker, abi.ExportInitialize, abi.ExportOnRestore, abi.ExportDescribe,
		abi.ExportToolCall, abi.ExportRoute, abi.ExportRetry, abi.OpKVGet, abi.OpKVPut,
	} {
		wants = append(wants, "| `"+name+"` |")
	}
	v := load(t)
	for _, e := range v.Errnos {
		wants = append(wants, fmt.Sprintf("| `%s` | %d |", e.Name, e.Number))
	}
	for _, c := range v.FailCodes {
		wants = append(wants, fmt.Sprintf("| %d | `%s` |", c.Number, c.Name))
	}
	for _, l := range v.Levels {
		wants = append(wants, fmt.Sprintf("%d %s", l.Number, l.Name))
	}
	for _, class := range v.Classes {
		wants = append(wants, "`"+class+"`")
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("ABI.md lacks %q", want)
		}
	}
	if abi.MaxFailText != 4096 || abi.MaxKVKey != 512 || abi.MaxKVValue != 65536 || abi.MaxKVPuts != 100 || abi.MaxKVPutBytes != 1<<20 {
		t.Error("a limit differs from what ABI.md says")
	}
}

func TestClassVectors(t *testing.T) {
	want := []string{
		abi.ClassOK, abi.ClassUpstreamStatus, abi.ClassUpstreamTimeout, abi.ClassUpstreamNetwork, abi.ClassUpstreamInvalid,
		abi.ClassRateLimited, abi.ClassGuestTrap, abi.ClassGuestFuel, abi.ClassGuestDeadline, abi.ClassGuestMemory, abi.ClassGuestDepth,
		abi.ClassGuestOutput, abi.ClassGuestDenied, abi.ClassGuestError, abi.ClassGuestInvalidOutput, abi.ClassGuestThrottled,
		abi.ClassPluginUnavailable, abi.ClassCanceled, abi.ClassDeadline, abi.ClassWorkerLost, abi.ClassStepAbandoned, abi.ClassHostError,
	}
	if got := load(t).Classes; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", got, want)
	}
}
