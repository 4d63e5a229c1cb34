package host

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a directory must be quiet before its modules are read
// again: a copy in progress is many events.
const settle = 100 * time.Millisecond

// watch loads module files again when they change. It watches their
// directories, since editors and deployments replace files rather than write
// into them.
func (h *Host) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
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
			changed[filepath.Dir(e.Name)] = true
			quiet = time.After(settle)
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

// refresh loads one file again; the catalog has logged what is wrong with it.
func (h *Host) refresh(ctx context.Context, file string) {
	h.reload.Lock()
	defer h.reload.Unlock()
	if err := h.catalog.Refresh(ctx, file); err != nil {
		h.log.Debug("refresh", "file", file, "error", err)
	}
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
// that cannot be loaded leaves the one before in place and is the error.
// Other settings of c need a restart; those that differ are logged.
func (h *Host) Reload(ctx context.Context, c Config) error {
	h.reload.Lock()
	defer h.reload.Unlock()
	for _, name := range restartNeeded(h.config, c) {
		h.log.Warn("changed in the configuration, but only a restart applies it", "key", name)
	}
	err := h.catalog.Apply(ctx, sources(c))
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
	var names []string
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"listen", old.Listen, c.Listen},
		{"store", old.Store, c.Store},
		{"upstreams", old.Upstreams, c.Upstreams},
		{"models", old.Models, c.Models},
		{"tenants", old.Tenants, c.Tenants},
		{"max_body_bytes", old.MaxBodyBytes, c.MaxBodyBytes},
		{"slots", old.Slots, c.Slots},
		{"lease", old.Lease, c.Lease},
	} {
		if !reflect.DeepEqual(f.a, f.b) {
			names = append(names, f.name)
		}
	}
	return names
}
