package tenant_test

import (
	"crypto/sha256"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/tenant"
)

func entry(name string, keys ...string) tenant.Entry {
	e := tenant.Entry{Tenant: tenant.Tenant{Name: name}}
	for _, k := range keys {
		e.KeyHashes = append(e.KeyHashes, sha256.Sum256([]byte(k)))
	}
	return e
}

func TestDirectory(t *testing.T) {
	d, err := tenant.New([]tenant.Entry{entry("acme", "k1", "k2"), entry("beta", "k3"), entry("gone")})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"k1": "acme", "k2": "acme", "k3": "beta", "k4": "", "": "", "K1": "", "k1 ": ""} {
		got, ok := d.ByKey(key)
		if got.Name != want || ok != (want != "") {
			t.Errorf("ByKey(%q): got %q, %v, want %q", key, got.Name, ok, want)
		}
	}
	if got, ok := d.Open(); ok {
		t.Errorf("Open with keys configured: got %q, want none", got.Name)
	}
	if got, ok := d.ByName("gone"); !ok || got.Name != "gone" {
		t.Errorf("ByName: got %q, %v", got.Name, ok)
	}
	if got, ok := d.ByName("nobody"); ok {
		t.Errorf("ByName of nobody: got %q", got.Name)
	}
}

func TestDirectoryOpen(t *testing.T) {
	d, err := tenant.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := d.Open()
	if !ok || got.Name != tenant.Default || got.Tools.Mode != tenant.Auto || got.Limits.Weight != 1 {
		t.Errorf("Open: got %+v, %v, want the default tenant", got, ok)
	}
	if !got.MayUse("any") || !got.MayCall("any", "thing") {
		t.Error("the default tenant may use everything")
	}
	if _, ok := d.ByKey(""); ok {
		t.Error("an empty key is nobody's")
	}
}

func TestNewRefuses(t *testing.T) {
	bad := func(change func(*tenant.Entry)) []tenant.Entry {
		e := entry("a", "k")
		change(&e)
		return []tenant.Entry{e}
	}
	tests := []struct {
		name    string
		entries []tenant.Entry
		want    error
	}{
		{"name twice", []tenant.Entry{entry("a", "k1"), entry("a", "k2")}, tenant.ErrDuplicate},
		{"key twice", []tenant.Entry{entry("a", "k"), entry("b", "k")}, tenant.ErrDuplicate},
		{"two without keys", []tenant.Entry{entry("a"), entry("b")}, tenant.ErrInvalid},
		{"no name", []tenant.Entry{entry("", "k")}, tenant.ErrInvalid},
		{"NUL in name", []tenant.Entry{entry("a\x00b", "k")}, tenant.ErrInvalid},
		{"long name", []tenant.Entry{entry(strings.Repeat("a", 129), "k")}, tenant.ErrInvalid},
		{"mode", bad(func(e *tenant.Entry) { e.Tools.Mode = "always" }), tenant.ErrInvalid},
		{"weight", bad(func(e *tenant.Entry) { e.Limits.Weight = math.NaN() }), tenant.ErrInvalid},
		{"running", bad(func(e *tenant.Entry) { e.Limits.MaxRunning = -1 }), tenant.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tenant.New(tt.entries); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestMay(t *testing.T) {
	tn := tenant.Tenant{Models: []string{"m1"}, Tools: tenant.Tools{Allow: []string{"calc", "notes/list"}}}
	for model, want := range map[string]bool{"m1": true, "m2": false, "": false, "M1": false} {
		if got := tn.MayUse(model); got != want {
			t.Errorf("MayUse(%q): got %v, want %v", model, got, want)
		}
	}
	for _, tt := range []struct {
		plugin, tool string
		want         bool
	}{{"calc", "add", true}, {"notes", "list", true}, {"notes", "add", false}, {"other", "calc", false}} {
		if got := tn.MayCall(tt.plugin, tt.tool); got != tt.want {
			t.Errorf("MayCall(%q, %q): got %v, want %v", tt.plugin, tt.tool, got, tt.want)
		}
	}
}
