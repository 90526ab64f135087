//go:build linux

package loopdev

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Cannot ends a test that this machine cannot run. Where ./test/run has installed all that tests need it fails it, else
// it skips it.
func Cannot(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Need skips a test whose programs are not there, or fails it where ./test/run has installed them.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Cannot(t, "%v", err)
		}
	}
}

// Run runs a program, which the test needs, on devices and files of the test, and returns what it printed.
func Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	Need(t, program)
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// grow makes a tree of files below dir: of random bytes, of zeros, with holes, links, and many small ones.
func grow(t testing.TB, dir string, seed uint64) {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{byte(seed)})
	write := func(name string, size int, at ...int64) {
		b := make([]byte, size)
		rnd.Read(b)
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, off := range append(at, 0) {
			if _, err := f.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range []string{"small", "deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		write(fmt.Sprint("small/", i), 1+i*37)
	}
	write("large", 5<<20+123)
	write("deep/er/sparse", 4096, 3<<20, 7<<20)
	if err := os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../large", filepath.Join(dir, "deep/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "large"), 0o4711); err != nil {
		t.Fatal(err)
	}
}

// listing describes all files below dir.
func listing(t testing.TB, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v %v", strings.TrimPrefix(path, dir), info.Mode(), info.ModTime().UnixNano())
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(b), sha256.Sum256(b))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + to
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// A Disk is a file with what a whole disk holds: a GPT, ext4 in partition 1, and xfs in partition 2, with trees of files.
type Disk struct {
	File string
	Size int64

	trees [2][]string
}

var filesystems = [2]string{"ext4", "xfs"}

// MakeDisk makes a Disk for sectors of so many bytes in dir. It takes sgdisk, mkfs.ext4 and mkfs.xfs.
func MakeDisk(t testing.TB, dir string, sector int) Disk {
	t.Helper()
	const mib = 1 << 20
	m := Disk{Size: 400 * mib}
	d := New(t, dir, m.Size, Options{Sector: sector})
	m.File = d.File
	Run(t, "sgdisk", "-n", "1:1M:+48M", "-c", "1:boot", "-n", "2:50M:+340M", "-c", "2:root", d.Path)
	d.AddPartition(t, 1, mib, 48*mib)
	d.AddPartition(t, 2, 50*mib, 340*mib)
	Run(t, "mkfs.ext4", "-q", d.Partition(1))
	Run(t, "mkfs.xfs", "-q", "-s", fmt.Sprint("size=", sector), d.Partition(2))
	for i, kind := range filesystems {
		if err := d.Mount(t, d.Partition(i+1), kind, 0, func(dir string) {
			grow(t, dir, uint64(i))
			m.trees[i] = listing(t, dir)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Detach(); err != nil {
		t.Fatal(err)
	}
	return m
}

// Check compares a device that may be larger with the disk, as another program left it: its table with sgdisk, its file systems with
// e2fsck and xfs_repair, and what is in them.
func (m Disk) Check(t testing.TB, d *Device) {
	t.Helper()
	if out := Run(t, "sgdisk", "-v", d.Path); !strings.Contains(out, "No problems found") {
		t.Errorf("%s: sgdisk -v says:\n%s", d.Path, out)
	}
	if got := d.Partitions(t); !slices.Equal(got, []int{1, 2}) {
		t.Fatalf("%s: the kernel knows the partitions %v", d.Path, got)
	}
	Run(t, "e2fsck", "-fn", d.Partition(1))
	Run(t, "xfs_repair", "-n", d.Partition(2))
	for i, kind := range filesystems {
		if err := d.Mount(t, d.Partition(i+1), kind, unix.MS_RDONLY, func(dir string) {
			if got := listing(t, dir); !slices.Equal(got, m.trees[i]) {
				t.Errorf("%s: %s has %d files that are not the %d of the source", d.Path, kind, len(got), len(m.trees[i]))
			}
		}); err != nil {
			t.Errorf("%s: %s does not mount: %v", d.Path, kind, err)
		}
	}
}
