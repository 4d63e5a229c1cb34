package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long after its first change a module is read again: a copy in
// progress is many events. One that takes longer is read again at its next.
const settle = 100 * time.Millisecond

// watch loads module files again when they change. It watches their
// directories, since editors and deployments replace files rather than write
// into them.
func (h *Host) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		h.log.Warn("module files are not watched: send SIGHUP after a change", "error", err)
		return h.unwatched(ctx)
	}
	defer watcher.Close()
	var files []string
	watched := func(next []string) {
		files = next
		for _, dir := range dirs(files) {
			if err := watcher.Add(dir); err != nil {
				h.log.Warn("module files are not watched: send SIGHUP after a change", "dir", dir, "error", err)
			}
		}
	}
	h.reload.Lock()
	first := h.sourceFiles()
	h.reload.Unlock()
	watched(first)
	var quiet <-chan time.Time
	changed := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-h.files:
			watched(next)
		case err := <-watcher.Errors:
			h.log.Warn("watch", "error", err)
		case e := <-watcher.Events:
			if !touches(e.Name, files) {
				continue // a log or a database may live beside the modules
			}
			changed[filepath.Dir(e.Name)] = true
			if quiet == nil { // events without end must not put it off for ever
				quiet = time.After(settle)
			}
		case <-quiet:
			quiet = nil
			for _, f := range files {
				if changed[filepath.Dir(f)] {
					h.refresh(ctx, f)
				}
			}
			clear(changed)
		}
	}
}

// touches reports whether an event of name may change one of files: it is the
// file's own, or that of a link that a deployment swaps for a whole directory
// ("..data").
func touches(name string, files []string) bool {
	if strings.HasPrefix(filepath.Base(name), "..") {
		return true
	}
	return slices.ContainsFunc(files, func(f string) bool { return filepath.Clean(f) == filepath.Clean(name) })
}

// unwatched takes the lists of files that Reload sends, and does nothing else.
func (h *Host) unwatched(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.files:
		}
	}
}

// refresh loads one file again.
func (h *Host) refresh(ctx context.Context, file string) {
	h.reload.Lock()
	defer h.reload.Unlock()
	_ = h.catalog.Refresh(ctx, file) // the catalog has logged what is wrong with it, and /readyz tells it
}

func (h *Host) sourceFiles() []string {
	var files []string
	for _, s := range sources(h.config) {
		files = append(files, s.File)
	}
	return files
}

func dirs(files []string) []string {
	var all []string
	for _, f := range files {
		all = append(all, filepath.Dir(f))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Reload makes the plugins and policies of c the present ones, each swapped
// for itself: calls in flight end on the module they began with, and a module
// that cannot be loaded leaves the one before in place and is the error. What
// tenants may use of plugins counts from the next call on, their weights, caps
// and reserves from the next claim on. Other settings of c need a restart; those
// that differ are logged.
func (h *Host) Reload(ctx context.Context, c Config) error {
	h.reload.Lock()
	defer h.reload.Unlock()
	for _, name := range restartNeeded(h.config, c) {
		h.log.Warn("changed in the configuration, but only a restart applies it", "setting", name)
	}
	h.budgets.set(c.Tenants)
	h.name(c)
	served := c
	served.Models = h.config.Models
	h.recorder.set(served.Models, limits(served))
	err := errors.Join(h.catalog.Apply(ctx, sources(c)), h.store.SetLimits(ctx, limits(served)))
	h.warnOfBudgets(c.Tenants)
	h.config.Plugins, h.config.Policies = c.Plugins, c.Policies
	select {
	case <-h.files: // an older list that nobody took
	default:
	}
	h.files <- h.sourceFiles()
	if err != nil {
		return fmt.Errorf("host: reload: %w", err)
	}
	return nil
}

// restartNeeded names the settings that differ and that Reload does not apply.
func restartNeeded(old, c Config) []string {
	old.Tenants, c.Tenants = withoutLimits(old.Tenants), withoutLimits(c.Tenants)
	a, b := reflect.ValueOf(old), reflect.ValueOf(c)
	var names []string
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		if name == "Plugins" || name == "Policies" || name == "Logger" {
			continue
		}
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, name)
		}
	}
	return names
}

// withoutLimits returns tenants without what Reload applies of them.
func withoutLimits(tenants []Tenant) []Tenant {
	all := slices.Clone(tenants)
	for i := range all {
		all[i].PluginFuelPerMinute, all[i].PluginInstances, all[i].PluginLimits = 0, 0, nil
		all[i].Weight, all[i].MaxRunning, all[i].MaxRunningTotal, all[i].Reserve = 0, 0, 0, Reserve{}
	}
	return all
}
