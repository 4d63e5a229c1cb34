//go:build !unix

package sqlite_test

import "os/exec"

// asNobody changes nothing: there is no root here that could.
func asNobody(*exec.Cmd) {}
