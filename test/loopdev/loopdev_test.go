//go:build linux

package loopdev

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		d := New(t, t.TempDir(), 1<<20, Options{Sector: sector})
		f := d.Open(t, os.O_RDWR)
		if got, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil || got != sector {
			t.Errorf("sectors of %d bytes, %v, want %d", got, err, sector)
		}
		want := bytes.Repeat([]byte("loop"), 1024)
		if _, err := f.WriteAt(want, 8192); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(d.File)
		if err != nil || !bytes.Equal(whole[8192:][:4096], want) {
			t.Errorf("what was written is not in the file: %v", err)
		}
		d.AddPartition(t, 2, 512<<10, 256<<10)
		if got := d.Partitions(t); !slices.Equal(got, []int{2}) {
			t.Errorf("partitions %v, want 2", got)
		}
		f.Close()
		if err := d.Detach(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.Partition(2)); !os.IsNotExist(err) {
			t.Errorf("%s after the end: %v", d.Partition(2), err)
		}
	}
}

// What is over another file than the test's is not used, and what is no regular file gets no device.
func TestOnlyOwn(t *testing.T) {
	dir := t.TempDir()
	d := New(t, dir, 1<<20, Options{})
	other := *d
	other.ino++
	if err := other.check(); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("a device over another file: %v", err)
	}
	if err := other.Detach(); err == nil {
		t.Error("a device over another file was detached")
	}
	d.Check(t)
	if _, err := attach(d.Path, Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device over a device: %v", err)
	}
	if _, err := attach(filepath.Join(dir, "none"), Options{}); !os.IsNotExist(err) {
		t.Errorf("a device over nothing: %v", err)
	}
}
