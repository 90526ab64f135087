package raw

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// cachedOf returns how many bytes of a part of a file are in memory, or on their way.
func cachedOf(t *testing.T, f *os.File, off, n int64) int64 {
	t.Helper()
	var st unix.Cachestat_t
	err := disk.Control(f, func(fd int) error {
		return unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &st, 0)
	})
	if errors.Is(err, unix.ENOSYS) {
		loopdev.Cannot(t, "cachestat(2) is that of Linux 6.5: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(st.Cache) * int64(os.Getpagesize())
}

// allocate gives a file blocks in place of its holes.
func allocate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := disk.Control(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) }); err != nil {
		loopdev.Cannot(t, "fallocate: %v", err)
	}
}

// While a file is read the kernel has the next MiB of it read, also where it does not read ahead by itself, but no holes.
func TestReadsAhead(t *testing.T) {
	const size, run = 64 << 20, 12 << 20
	for _, sparse := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "file")
		writeSparse(t, path, size, run, 0)
		if !sparse {
			allocate(t, path, size)
		}
		s, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		err = disk.Control(s.f, func(fd int) error {
			return errors.Join(unix.Fsync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM))
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := cachedOf(t, s.f, 0, size); n > 0 {
			loopdev.Cannot(t, "%d bytes of a file in %s stay in memory", n, filepath.Dir(path))
		}
		r, err := s.Open(t.Context(), Describe(path, size), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if skips, ok := r.(interface{ SkipZeros(int64) (int64, error) }); ok != sparse {
			t.Fatalf("sparse: %v, skips holes: %v", sparse, ok)
		} else if ok {
			if n, err := skips.SkipZeros(size); n > 0 || err != nil {
				t.Fatal(n, err)
			}
		}
		for at := int64(0); at < 6<<20; at += 1 << 20 {
			if n := cachedOf(t, s.f, at+soonStep, soonWindow-soonStep); at > 0 && n < min(soonWindow, run-at)-2*soonStep {
				t.Errorf("sparse: %v, at byte %d: %d bytes in front of it are in memory", sparse, at, n)
			}
			if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if n := cachedOf(t, s.f, run+1<<20, size); sparse && n > 0 {
			t.Errorf("%d bytes of holes, and of what is behind them, are in memory", n)
		}
	}
}
