package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

// settle is how long a file must be quiet before it is read: editors write
// more than once.
const settle = 200 * time.Millisecond

// watch calls changed whenever the content of the file at path is another, and
// returns when ctx ends. It watches the directory, since editors and
// deployments put a new file in place of the old one.
func watch(ctx context.Context, path string, log hclog.Logger, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	last := content(path)
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			base := filepath.Base(e.Name)
			if base == filepath.Base(path) || strings.HasPrefix(base, "..") { // "..data": a deployment's link
				quiet.Reset(settle)
			}
		case err := <-w.Errors: // events were lost: look at the file
			log.Warn("watch the configuration file", "error", err)
			quiet.Reset(settle)
		case <-quiet.C:
			// A file that is gone for a moment is no change.
			if now := content(path); now != last && now != ([sha256.Size]byte{}) {
				last = now
				changed()
			}
		}
	}
}

// content returns the hash of a file, zero when it cannot be read.
func content(path string) [sha256.Size]byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(data)
}
