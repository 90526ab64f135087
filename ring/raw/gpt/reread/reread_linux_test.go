package reread

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/raw/gpt"
	"github.com/dolly-img/dolly-img/test/loopdev"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

func find(t *testing.T, f *os.File) Disk {
	t.Helper()
	d, ok, err := Find("/sys", f)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", f.Name(), ok, err)
	}
	return d
}

// table reads the partition table of a device.
func table(t *testing.T, f *os.File, size, sector int64) []gpt.Partition {
	t.Helper()
	found, err := gpt.Read(f, size, sector)
	if errors.Is(err, gpt.ErrNone) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	return found.Partitions
}

func places(list []gpt.Partition) (s []string) {
	for _, p := range list {
		s = append(s, fmt.Sprint(p.Number, p.Start, p.Size))
	}
	return s
}

// A disk with two partitions, of which one is mounted, and what becomes of them.
func TestAgain(t *testing.T) {
	for _, opts := range []loopdev.Options{{Sector: 512}, {Sector: 512, PartScan: true}, {Sector: 4096}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			const size = 64 * mib
			loop := loopdev.New(t, t.TempDir(), size, opts)
			loop.AddPartition(t, 1, 2*mib, 4*mib) // of the table before
			loop.AddPartition(t, 3, 8*mib, 4*mib)
			loopdev.Run(t, "sgdisk", "-n", "1:1M:+16M", "-n", "2:0:+8M", loop.Path)
			f := loop.Open(t, os.O_RDWR|unix.O_EXCL)
			d := find(t, f)
			want := table(t, f, size, int64(opts.Sector))
			again := func() {
				t.Helper()
				way, err := d.Again(f, want)
				if err != nil || way != Told && way != Kernel {
					t.Fatalf("%q, %v", way, err)
				}
				if got, err := d.Partitions(); err != nil || len(want) != 2 || !slices.Equal(places(got), places(want)) {
					t.Fatalf("partitions %v, %v, want %v", places(got), err, places(want))
				}
			}
			again()
			again() // partitions that are there already are no fault

			// A partition that is in use is named, and stays.
			f.Close()
			loopdev.Run(t, "mkfs.ext4", "-q", loop.Partition(2))
			f = loop.Open(t, os.O_RDWR)
			if err := loop.Mount(t, loop.Partition(2), "ext4", 0, func(string) {
				_, err := d.Again(f, want)
				if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "partition 2 of "+loop.Path+" is mounted or open") {
					t.Errorf("with a partition that is mounted: %v", err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			again()

			// A partition is no disk.
			part, err := os.Open(loop.Partition(1))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok, err := Find("/sys", part); ok || err != nil {
				t.Errorf("a partition: %v, %v", ok, err)
			}
			part.Close()

			// Without a table there is no partition.
			if _, err := d.Again(f, nil); err != nil || len(loop.Partitions(t)) != 0 {
				t.Errorf("without a table: %v, partitions %v", err, loop.Partitions(t))
			}
		})
	}
}

// What the kernel would show otherwise than the table says: an extended partition, and what is behind the end.
func TestAgainShown(t *testing.T) {
	loop := loopdev.New(t, t.TempDir(), 16*mib, loopdev.Options{})
	f := loop.Open(t, os.O_RDWR)
	d := find(t, f)
	_, err := d.Again(f, []gpt.Partition{
		{Number: 1, Start: mib, Size: mib, Name: "a name"}, {Number: 2, Start: 4 * mib, Size: 8 * mib, Extended: true},
		{Number: 3, Start: 14 * mib, Size: 4 * mib}, {Number: 4, Start: 16 * mib, Size: mib}, {Number: 5, Start: 5 * mib, Size: mib},
		{Number: 300, Start: 7 * mib, Size: mib},
	})
	want := []string{"1 1048576 1048576", "2 4194304 1024", "3 14680064 2097152", "5 5242880 1048576"}
	got, err2 := d.Partitions()
	if err := errors.Join(err, err2); err != nil || !slices.Equal(places(got), want) {
		t.Errorf("%q, %v, want %q", places(got), err, want)
	}
}

func TestAgainWithoutPrivilege(t *testing.T) {
	loop := loopdev.New(t, t.TempDir(), 16*mib, loopdev.Options{})
	loop.AddPartition(t, 1, mib, mib)
	f := loop.Open(t, os.O_RDWR|unix.O_EXCL)
	d := find(t, f)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine, for it lacks a privilege
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&head, &caps[0]); err != nil {
			done <- err
			return
		}
		caps[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err := unix.Capset(&head, &caps[0]); err != nil {
			done <- err
			return
		}
		_, err := d.Again(f, nil)
		if err == ErrPrivilege {
			err = d.tell(f, nil)
		}
		done <- err
	}()
	if err := <-done; err != ErrPrivilege {
		t.Errorf("without CAP_SYS_ADMIN: %v", err)
	}
	if got := loop.Partitions(t); len(got) != 1 {
		t.Errorf("partitions %v", got)
	}
}

// tree makes a disk with partitions as sysfs shows them.
func tree(t *testing.T, partitions ...gpt.Partition) Disk {
	dir := t.TempDir()
	for name, value := range map[string]int64{"size": 1 << 20, "queue/logical_block_size": 512} {
		put(t, dir, name, value)
	}
	for _, p := range partitions {
		putPartition(t, dir, p)
	}
	return Disk{dir}
}

func putPartition(t *testing.T, dir string, p gpt.Partition) {
	name := fmt.Sprintf("sda%d/", p.Number)
	put(t, dir, name+"start", p.Start/512)
	put(t, dir, name+"size", p.Size/512)
	put(t, dir, name+"partition", int64(p.Number))
}

func put(t *testing.T, dir, name string, value int64) {
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, fmt.Appendln(nil, value), 0o644)); err != nil {
		t.Error(err)
	}
}

func TestWait(t *testing.T) {
	p1, p2 := gpt.Partition{Number: 1, Start: mib, Size: mib}, gpt.Partition{Number: 10, Start: 2 * mib, Size: mib, Name: "a name"}
	synctest.Test(t, func(t *testing.T) {
		d := tree(t, p1)
		start := time.Now()
		go func() {
			time.Sleep(Patience - time.Second)
			putPartition(t, d.dir, p2)
		}()
		if way, err := d.Wait(t.Context(), []gpt.Partition{p1, p2}); err != nil || way != Udev || time.Since(start) < Patience-time.Second {
			t.Errorf("%q, %v, after %v", way, err, time.Since(start))
		}
		start = time.Now()
		if _, err := d.Wait(t.Context(), []gpt.Partition{p1}); err == nil || !strings.Contains(err.Error(), "partprobe") || time.Since(start) != Patience {
			t.Errorf("a partition that stays: %v, after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Wait(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("an end that was asked for: %v", err)
		}
	})
}

func TestFindRefuses(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := Find("/sys", f); err == nil || !strings.Contains(err.Error(), "not a block device") {
		t.Errorf("a file: %v", err)
	}
}
