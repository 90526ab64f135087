package crashfs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// state says what is under a name.
func state(f *FS, name string) string {
	h, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "none"
	}
	b := make([]byte, 100)
	n, _ := h.ReadAt(b, 0)
	return fmt.Sprintf("%q", b[:n])
}

func TestReboot(t *testing.T) {
	write := func(f *FS, name, s string) durable.File {
		h, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		h.WriteAt([]byte(s), 0)
		return h
	}
	two := func(f *FS) { write(f, "a", "x").Sync(); write(f, "b", "y").Sync(); f.SyncDir(".") }
	zeros := func(int) int { return 1 }
	for _, tt := range []struct {
		name         string
		do           func(f *FS)
		names, bytes Choice
		want         string // of a and b
	}{
		{"nothing durable", func(f *FS) { write(f, "a", "x") }, Oldest, Oldest, `none none`},
		{"all by luck", func(f *FS) { write(f, "a", "x") }, Newest, Newest, `"x" none`},
		{"name only", func(f *FS) { write(f, "a", "x"); f.SyncDir(".") }, Oldest, Oldest, `"" none`},
		{"zeros", func(f *FS) { write(f, "a", "x"); f.SyncDir(".") }, Oldest, zeros, `"\x00" none`},
		{"bytes only", func(f *FS) { write(f, "a", "x").Sync() }, Oldest, Newest, `none none`},
		{"durable", func(f *FS) { write(f, "a", "x").Sync(); f.SyncDir(".") }, Oldest, Oldest, `"x" none`},
		{"written over", func(f *FS) { write(f, "a", "x").Sync(); f.SyncDir("."); write(f, "a", "y") }, Oldest, Oldest, `"x" none`},
		{"rename lost", func(f *FS) { write(f, "a", "x").Sync(); f.SyncDir("."); f.Rename("a", "b") }, Oldest, Oldest, `"x" none`},
		{"rename durable", func(f *FS) { write(f, "a", "x").Sync(); f.Rename("a", "b"); f.SyncDir(".") }, Oldest, Oldest, `none "x"`},
		{"removed", func(f *FS) { write(f, "a", "x").Sync(); f.SyncDir("."); f.Remove("a") }, Oldest, Oldest, `"x" none`},
		{"exchange lost", func(f *FS) { two(f); f.Exchange("a", "b") }, Oldest, Oldest, `"x" "y"`},
		{"exchange by luck", func(f *FS) { two(f); f.Exchange("a", "b") }, Newest, Oldest, `"y" "x"`},
		{"exchange durable", func(f *FS) { two(f); f.Exchange("a", "b"); f.SyncDir(".") }, Oldest, Oldest, `"y" "x"`},
		{"lying sync", func(f *FS) { f.IgnoreSync(true, true); write(f, "a", "x").Sync(); f.SyncDir(".") }, Oldest, Oldest, `none none`},
	} {
		f := New()
		tt.do(f)
		g := f.Reboot(tt.names, tt.bytes)
		if got := state(g, "a") + " " + state(g, "b"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Half a rename leaves both names, or none.
func TestRebootHalfRename(t *testing.T) {
	f := New()
	h, _ := f.OpenFile("a", os.O_RDWR|os.O_CREATE, 0o644)
	h.WriteAt([]byte("x"), 0)
	h.Sync()
	f.SyncDir(".")
	f.Rename("a", "b")
	seen := map[string]bool{}
	for seed := range uint64(50) {
		g := f.Reboot(Random(seed), Newest)
		seen[state(g, "a")+" "+state(g, "b")] = true
	}
	if len(seen) != 4 {
		t.Errorf("seen %v, want all four", seen)
	}
}

func TestFailAndCrash(t *testing.T) {
	f := New()
	f.FailAt(2)
	if err := f.Mkdir("a", 0o755); err != nil {
		t.Error(err)
	}
	if err := f.Mkdir("b", 0o755); !errors.Is(err, syscall.EIO) {
		t.Errorf("second: %v", err)
	}
	if err := f.Mkdir("b", 0o755); err != nil {
		t.Error(err)
	}
	f.CrashAt(1)
	for range 2 {
		if err := f.SyncDir("."); !errors.Is(err, ErrPowerLoss) {
			t.Errorf("after the crash: %v", err)
		}
	}
	if names, err := f.Reboot(Oldest, Oldest).Names("."); len(names) != 0 || err != nil {
		t.Errorf("after the reboot: %v, %v", names, err)
	}
}
