package main

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/host"
)

const configHelp = `Check reads a configuration file, with the environment over it, and tells all
that is wrong, each with its line and what is wanted. It needs the variables
that the file names and the module files; it opens no store and loads no
module.

A file needs upstreams and models; every other key may be left out. These
variables go over the file:

  CASEMATE_LISTEN            listen
  CASEMATE_STORE             store: sqlite:PATH or postgres://…
  CASEMATE_LOG_LEVEL         log.level: trace, debug, info, warn, error
  CASEMATE_LOG_FORMAT        log.format: text, json
  CASEMATE_MAX_BODY_BYTES    max_body_bytes
  CASEMATE_SLOTS             slots
  CASEMATE_REALTIME_SLOTS    realtime_slots
  CASEMATE_MAX_REAPS         max_reaps
  CASEMATE_MAX_FAILURES      max_failures
  CASEMATE_LEASE             lease
  CASEMATE_POLL              poll
  CASEMATE_DRAIN             drain
  CASEMATE_TIMEOUTS_FIRST_EVENT, CASEMATE_TIMEOUTS_IDLE, CASEMATE_TIMEOUTS_TOTAL
  CASEMATE_RETRY_BUDGET_RATIO, CASEMATE_RETRY_BUDGET_MIN_PER_SECOND
  CASEMATE_RETENTION         retention
  CASEMATE_RECORD            record: before, after, off
  CASEMATE_FILES_MAX_BYTES   files.max_bytes
  CASEMATE_BATCHES_MAX_LINES, CASEMATE_BATCHES_KEEP
  CASEMATE_NOTIFY            notify: off, or postgres://… past a pooler
  CASEMATE_CACHE_DIR         cache_dir
  CASEMATE_SANDBOX_IDLE_MEMORY
  CASEMATE_SANDBOX_BREAKER_TRAPS, CASEMATE_SANDBOX_BREAKER_WINDOW, CASEMATE_SANDBOX_BREAKER_OPEN

A CASEMATE_ variable that is none of these is refused, unless the file names it
as the place of a key or it begins with CASEMATE_TEST_.`

// configCheck loads a file and says that it is good.
func configCheck(_ context.Context, a app, _ options, args []string) error {
	c, err := host.LoadConfig(args[0], a.environ, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s: ok: %s, %s, %s, %s\n", args[0],
		count(len(c.Upstreams), "upstream"), count(len(c.Models), "model"),
		count(len(c.Plugins), "plugin"), count(len(c.Tenants), "tenant"))
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
