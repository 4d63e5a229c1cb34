package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/casemate/casemate/host"
)

// version prints what was built, and the commit if the toolchain wrote it in.
func version(_ context.Context, a app, _ options, _ []string) error {
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " commit " + s.Value
			}
		}
	}
	_, err := fmt.Fprintf(a.stdout, "casemate %s%s %s %s/%s\n", host.Version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
