package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// guest is one program in both contracts.
type guest struct {
	name   string // of its files, and in the names of lines
	title  string // in tables
	wasi   bool   // imports WASI
	native []byte // nil: not built
	extism []byte
}

// The guests of the tables. The two in Go differ in who reads the JSON.
func allGuests() []*guest {
	return []*guest{
		{name: "c", title: "C"},
		{name: "rust", title: "Rust"},
		{name: "assemblyscript", title: "AssemblyScript"},
		{name: "wat", title: "WAT"},
		{name: "go", title: "Go", wasi: true},
		{name: "go-json", title: "Go, encoding/json", wasi: true},
	}
}

// readGuests reads the guests that are built in dir and says which are not.
func readGuests(dir string) (built []*guest, missing []string, err error) {
	for _, g := range allGuests() {
		for file, to := range map[string]*[]byte{g.name + ".wasm": &g.native, g.name + "-extism.wasm": &g.extism} {
			*to, err = os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, file)
			} else if err != nil {
				return nil, nil, err
			}
		}
		if g.native != nil {
			built = append(built, g)
		}
	}
	if len(built) == 0 {
		return nil, nil, fmt.Errorf("no guests in %s: build them with make bench-guests", dir)
	}
	return built, missing, nil
}
