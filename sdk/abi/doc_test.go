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
		"at most 10,000 keys and 16 MiB", "1 to 3,153,600,000,000", "1 to 1,000, absent or 0 is 100", "absent 1 MiB, never more than 8 MiB",
		"at most 8 open at a time", "`n` is 1 to 65,536",
	}
	for _, name := range []string{
		abi.ImportInputLen, abi.ImportInputRead, abi.ImportOutputWrite, abi.ImportFail, abi.ImportLog, abi.ImportEmit, abi.ImportCall,
		abi.ImportReplyRead, abi.ImportStreamRead, abi.ImportStreamClose, abi.ImportBudget,
	} {
		wants = append(wants, "| `"+name+"` |", "**`"+name+"`**")
	}
	for _, name := range []string{
		abi.ExportMemory, abi.ExportMarker, abi.ExportInitialize, abi.ExportOnRestore, abi.ExportDescribe,
		abi.ExportToolCall, abi.ExportRoute, abi.ExportRetry, abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList,
		abi.OpHTTPFetch, abi.OpToolCall, abi.OpTimeNow, abi.OpRand,
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
	for _, e := range v.OpErrors {
		wants = append(wants, "`"+e.Error+"`")
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
	if abi.QuotaKVKeys != 10_000 || abi.QuotaKVBytes != 16<<20 || abi.MaxKVTTLMS != 3_153_600_000_000 || abi.MaxKVList != 1000 || abi.DefaultKVList != 100 ||
		abi.DefaultHTTPBody != 1<<20 || abi.MaxHTTPBody != 8<<20 || abi.MaxStreams != 8 || abi.MaxRand != 65536 {
		t.Error("a limit of an op differs from what ABI.md says")
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
