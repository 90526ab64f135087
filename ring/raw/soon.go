package raw

import (
	"io"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

const (
	// soonWindow is how many bytes ahead of its reader the kernel has a file read, and soonStep how many at a time: at most as many
	// as the kernel reads for one call, which is what it gives a disk in one request (readahead(2) does not say so; mm/readahead.c
	// does).
	soonWindow = 8 << 20
	soonStep   = 512 << 10
)

// soon has the kernel read the file that is read from the front to the end into memory before it is asked for. What the kernel reads
// ahead by itself is 128 KiB on most machines, which keeps no fast disk busy, and where it was set to many MiB a reader of
// Linux 6.18 takes seven times as long, and as much processor time, as with this.
type soon struct {
	f    seeker
	told int64
}

// at is told where the reader is, and does not have more read than up to end.
func (s *soon) at(off, end int64) {
	s.told = max(s.told, off)
	end = min(end, off+soonWindow)
	if end-s.told < soonStep && end == off+soonWindow {
		return // a call for every few bytes would cost more than it gains
	}
	for ; s.told < end; s.told += min(soonStep, end-s.told) {
		n := min(soonStep, end-s.told)
		// A file system that cannot do this is read as before.
		_ = disk.Control(s.f, func(fd int) error { return unix.Fadvise(fd, s.told, n, unix.FADV_WILLNEED) })
	}
}

// soonReader reads a file of size bytes, from off on.
type soonReader struct {
	io.ReadCloser
	soon      soon
	off, size int64
}

func (r *soonReader) Read(b []byte) (int, error) {
	r.soon.at(r.off, r.size)
	n, err := r.ReadCloser.Read(b)
	r.off += int64(n)
	return n, err
}
