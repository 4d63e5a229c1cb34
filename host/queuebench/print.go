package queuebench

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// Print writes the tables. What was not measured has no table.
func (r Results) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s; client and server as they are now: only figures of one run compare\n", r.Database)
	r.printCosts(t)
	r.printFairness(t)
	r.printRates(t)
	r.printStarts(t)
	return t.Flush()
}

// head begins a table. Cells end with a tab, so that they are aligned.
func head(t io.Writer, title, columns string) { fmt.Fprintf(t, "\n%s\n%s\n", title, columns) }

func (r Results) printCosts(t io.Writer) {
	if len(r.Costs) == 0 {
		return
	}
	head(t, fmt.Sprintf("Claims of %d, one after the other, commit included", claimSize), "lanes\tpending\tclaims\tmean\tp50\tp99\t")
	for _, c := range r.Costs {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t\n", thousands(c.Lanes), thousands(c.Backlog), c.Claims, millis(c.Mean), millis(c.P50), millis(c.P99))
	}
}

func (r Results) printFairness(t io.Writer) {
	if f := r.Fairness; f.Served > 0 {
		head(t, fmt.Sprintf("Fairness: %s tenants of equal weight, one of which owns half of what pends", thousands(f.Tenants)),
			"served\tJain index\twhale's part\tits fair part\t")
		fmt.Fprintf(t, "%s\t%.3f\t%.2f %%\t%.2f %%\t\n", thousands(f.Served), f.Jain, 100*f.Whale, 100/float64(f.Tenants))
	}
	if c := r.Cap; c.Samples > 0 {
		head(t, fmt.Sprintf("A cap of %d that %d workers share, %s requests", c.Cap, c.Workers, thousands(c.Requests)),
			"samples\tover the cap\tmost seen\tcounter off by\t")
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t\n", thousands(c.Samples), c.Over, c.Highest, c.Drift)
	}
}

func (r Results) printRates(t io.Writer) {
	if len(r.Rates) > 0 {
		head(t, "Requests a second: claim, which starts, and complete; 1 KB in, 1 KB out", "at once\tbatch\trequests/s\tclaim p50\tcomplete p50\t")
		for _, x := range r.Rates {
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t\n", x.Conns, x.Batch, thousands(int(x.PerSecond)), millis(x.Claim), millis(x.Complete))
		}
	}
	if len(r.Whole) > 0 {
		head(t, "The same through a whole host", "slots\trequests/s\t")
		for _, x := range r.Whole {
			fmt.Fprintf(t, "%d\t%s\t\n", x.Batch, thousands(int(x.PerSecond)))
		}
	}
}

func (r Results) printStarts(t io.Writer) {
	if len(r.Starts) == 0 {
		return
	}
	head(t, "Enqueue to start", "pending\tenqueued on\tnotify\tsamples\tp50\tp99\t")
	for _, s := range r.Starts {
		notify := "off"
		if s.Notify {
			notify = "on"
		}
		if s.Where == SameHost {
			notify = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t\n", thousands(s.Backlog), s.Where, notify, s.Samples, millis(s.P50), millis(s.P99))
	}
}

func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 2, 64) + " ms"
}

// thousands writes a number with commas.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
