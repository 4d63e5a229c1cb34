package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/store"
)

// A table is judged by its dead rows from so many on, and it and an index by
// their size from so many bytes on: small ones cost nothing, and one that changes
// as often as the lanes has many dead rows a minute after each vacuum.
const (
	deadRows  = 10_000
	deadWarn  = 0.2
	deadBad   = 0.5
	big       = 64 << 20
	entrySize = 400 // bytes that an index takes for a row at most, half empty pages included
)

func tables(r store.Report) []Finding {
	var found []Finding
	for _, t := range r.Tables {
		share := float64(t.Dead) / float64(max(t.Rows+t.Dead, 1))
		level := by(share, deadWarn, deadBad)
		if t.Dead < deadRows || t.Bytes < big || level == OK {
			continue
		}
		vacuumed := "never vacuumed"
		if !t.Vacuumed.IsZero() {
			vacuumed = "vacuumed last at " + t.Vacuumed.UTC().Format("2006-01-02 15:04 UTC")
		}
		found = append(found, Finding{
			Level: level, What: fmt.Sprintf("table %s: %.0f %% of its rows are dead (%d), %s", t.Name, 100*share, t.Dead, vacuumed),
			Why: "every scan reads past them",
			Do:  "see that autovacuum is on and no old snapshot holds it up, then: vacuum analyze " + t.Name,
		})
	}
	return or(atMost(found, "tables with dead rows"), "%s: few dead rows", count(len(r.Tables), "table"))
}

func indexes(r store.Report) []Finding {
	rows := map[string]int64{}
	for _, t := range r.Tables {
		if t.Rows+t.Dead > 0 { // else its statistics may be lost, as a crash does
			rows[t.Name] = t.Rows
		}
	}
	// Where none was ever scanned the database does not count scans.
	counted := slices.ContainsFunc(r.Indexes, func(i store.IndexStat) bool { return i.Scans > 0 })
	var found []Finding
	for _, i := range r.Indexes {
		n, known := rows[i.Table]
		switch {
		case !i.Valid:
			found = append(found, Finding{
				Level: Bad, What: fmt.Sprintf("index %s on %s is invalid", i.Name, i.Table),
				Why: "queries do not use it, so claims may read whole tables; building it was interrupted",
				Do:  rebuild(r, i.Name),
			})
		case known && i.Bytes >= big && i.Bytes > entrySize*n:
			found = append(found, Finding{
				Level: Warn, What: fmt.Sprintf("index %s on %s has %s for about %d rows", i.Name, i.Table, megabytes(i.Bytes), n),
				Why: "most of it is dead entries, which claims read past",
				Do:  rebuild(r, i.Name),
			})
		case counted && i.Scans == 0 && i.Bytes >= big && !strings.HasSuffix(i.Name, "_pkey"):
			found = append(found, Finding{
				Level: Warn, What: fmt.Sprintf("index %s on %s has %s and was never used", i.Name, i.Table, megabytes(i.Bytes)),
				Why: "every write keeps it up to date for nothing",
				Do:  "if it is one of your own, drop it; if it is one of ours, statistics were just reset, or: analyze " + i.Table,
			})
		}
	}
	return or(atMost(found, "indexes in disorder"), "%s: valid and in size", count(len(r.Indexes), "index"))
}

// rebuild is the statement that builds an index anew.
func rebuild(r store.Report, index string) string {
	if strings.HasPrefix(r.Database, "SQLite") {
		return "reindex " + index
	}
	return "reindex index concurrently " + index
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n>>20) }
