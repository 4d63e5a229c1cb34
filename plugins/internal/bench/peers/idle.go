package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/casemate/casemate/plugins"
)

const (
	idleInstances = 100
	goalIdle      = 300 // KiB of a Go instance
)

// benchIdle measures what an idle instance holds, each figure in a process of
// its own.
func (b *bench) benchIdle() error {
	var rows [][]string
	for _, g := range b.named("go", "go-json") {
		row := []string{g.title}
		for _, host := range []string{wayOurs.host, wayWarm.host} {
			kib, err := b.idle(host + "/" + g.name)
			if err != nil {
				return err
			}
			if host == wayOurs.host {
				b.report.atMost("idle_instance_"+g.name, "%.0fKiB", kib, goalIdle)
			}
			row = append(row, fmt.Sprintf("%.0f KiB", kib))
		}
		rows = append(rows, row)
	}
	b.report.table(fmt.Sprintf("Memory of an idle instance: what %d of them, each called at least once, add to the process (PSS).", idleInstances),
		[]string{"guest", "Casemate", "wazero"}, rows)
	return nil
}

// idle runs this program again and reads what it prints.
func (b *bench) idle(what string) (kib float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, "-wasm", b.wasm, "-measure-idle", what)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// printIdle prints KiB of an idle instance of a guest on a host.
func printIdle(wasm, what string) error {
	host, name, _ := strings.Cut(what, "/")
	guests, _, err := readGuests(wasm)
	if err != nil {
		return err
	}
	b := &bench{guests: guests, peers: map[string]peer{}}
	g := b.guest(name)
	if g == nil || hosts[host] == nil {
		return fmt.Errorf("%s is not built, or not measured", what)
	}
	p, err := hosts[host](g)
	if err != nil {
		return err
	}
	grow := keepInstances
	if host == wayOurs.host {
		grow = atOnce
	}
	first, err := grow(p, 1)
	if err != nil {
		return err
	}
	before, err := pss()
	if err != nil {
		return err
	}
	last, err := grow(p, 1+idleInstances)
	if err != nil {
		return err
	}
	after, err := pss()
	if err != nil {
		return err
	}
	if last-first < idleInstances-1 {
		return fmt.Errorf("%s: %d instances are idle, not %d", what, last, 1+idleInstances)
	}
	fmt.Println((after - before) / float64(last-first))
	runtime.KeepAlive(p)
	return nil
}

// atOnce has n calls run at the same time and returns how many instances are
// idle afterwards. The calls are of several tenants, since those of one are
// bounded.
func atOnce(p peer, n int) (idle int, err error) {
	o := p.(*ours)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = failed(o.do(fmt.Sprint("tenant", i%4), []byte("z1000"), plugins.Limits{})) })
	}
	wg.Wait()
	return o.manager.Stats().Idle, errors.Join(errs...)
}

// kept holds the instances of keepInstances.
var kept []call

// keepInstances makes the kept instances n, each called once.
func keepInstances(p peer, n int) (int, error) {
	for len(kept) < n {
		c, err := p.worker(true)
		if err != nil {
			return 0, err
		}
		if _, err := c([]byte(smallInput)); err != nil {
			return 0, err
		}
		kept = append(kept, c)
	}
	return len(kept), nil
}

// pss returns the process's share of memory in KiB, without garbage.
func pss() (float64, error) {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what the first one's finalizers let go
	data, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "Pss:" {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, errors.New("smaps_rollup has no Pss")
}
