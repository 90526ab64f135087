// Package crashdisk is a disk with a volatile cache, in memory, for tests of what survives a failure. It fails the n-th
// operation, or takes the power away there and drops what was not flushed.
//
// Only that is on the medium which was written before a Flush that returned. Of every later write, a power loss chooses on
// its own how much of it is there: nothing, all, or any of its sectors. A sector is never torn.
package crashdisk

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
)

// ErrPowerLoss is the error of every operation from the crash on.
var ErrPowerLoss = errors.New("power loss")

// page is the unit in which a disk keeps its content. A page that is not in the map is zeros.
const page = 4096

type content map[int64]*[page]byte

// Disk is the disk. Several goroutines may use it.
type Disk struct {
	size, sector int64

	mu      sync.Mutex
	ops     int
	written int64
	failAt  int
	crashAt int
	lies    bool
	now     content
	durable content
	pending []write // since the last flush
}

// write is a write that was not flushed.
type write struct {
	off, n int64
	data   []byte // nil: zeros
}

// New makes a disk of zeros.
func New(size, sector int64) *Disk {
	return &Disk{size: size, sector: sector, now: content{}, durable: content{}}
}

// FailAt makes the n-th writing operation from now fail with EIO and do nothing. It counts from 1; 0 is none.
func (d *Disk) FailAt(n int) { d.set(&d.failAt, n) }

// CrashAt takes the power away before the n-th writing operation from now; 0 is never.
func (d *Disk) CrashAt(n int) { d.set(&d.crashAt, n) }

func (d *Disk) set(p *int, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if *p = 0; n > 0 {
		*p = d.ops + n
	}
}

// IgnoreFlush makes Flush lie: it succeeds and flushes nothing. A test that does not notice this proves nothing.
func (d *Disk) IgnoreFlush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies = true
}

// Ops returns how many writing operations there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Written returns how many bytes were written.
func (d *Disk) Written() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Sector is the size of a sector in bytes.
func (d *Disk) Sector() int64 { return d.sector }

// String names the disk.
func (d *Disk) String() string { return "crashdisk" }

// Close does nothing.
func (d *Disk) Close() error { return nil }

// op counts one writing operation. mu is held.
func (d *Disk) op() error {
	d.ops++
	switch {
	case d.crashAt > 0 && d.ops >= d.crashAt:
		return ErrPowerLoss
	case d.failAt > 0 && d.ops == d.failAt:
		return syscall.EIO
	}
	return nil
}

// whole refuses what a direct transfer to a disk cannot be.
func (d *Disk) whole(off, n int64) error {
	if off < 0 || n < 0 || off+n > d.size || off%d.sector != 0 || n%d.sector != 0 {
		return fmt.Errorf("%d bytes at %d: %w", n, off, syscall.EINVAL)
	}
	return nil
}

// ReadAt reads the newest bytes.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.whole(off, int64(len(p))); err != nil {
		return 0, err
	}
	if d.crashAt > 0 && d.ops >= d.crashAt {
		return 0, ErrPowerLoss
	}
	d.now.read(p, off)
	return len(p), nil
}

// WriteAt writes p.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.write(write{off, int64(len(p)), append([]byte{}, p...)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Zero writes n zeros.
func (d *Disk) Zero(off, n int64) error { return d.write(write{off: off, n: n}) }

func (d *Disk) write(w write) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.whole(w.off, w.n); err != nil {
		return err
	}
	if err := d.op(); err != nil {
		return err
	}
	d.written += w.n
	d.now.write(w.data, w.off, w.n)
	d.pending = append(d.pending, w)
	return nil
}

// Flush makes durable what was written.
func (d *Disk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op(); err != nil {
		return err
	}
	if !d.lies {
		d.durable, d.pending = maps.Clone(d.now), nil
	}
	return nil
}

// Choice picks one of n possibilities after a power loss: of each write that was not flushed 0 is none of it, 1 all of it,
// and 2 any of its sectors, each chosen between 0, which is lost, and 1.
type Choice func(n int) int

// Oldest keeps what was flushed, Newest keeps everything.
var (
	Oldest Choice = func(int) int { return 0 }
	Newest Choice = func(int) int { return 1 }
)

// Random chooses by chance, in the same way for the same seed.
func Random(seed uint64) Choice {
	r := rand.New(rand.NewPCG(seed, seed))
	return r.IntN
}

// Reboot returns the disk after a power loss now.
func (d *Disk) Reboot(choose Choice) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := maps.Clone(d.durable)
	for _, w := range d.pending {
		switch choose(3) {
		case 0:
		case 1:
			c.write(w.data, w.off, w.n)
		default:
			for at := int64(0); at < w.n; at += d.sector {
				if choose(2) == 0 {
					continue
				}
				var b []byte
				if w.data != nil {
					b = w.data[at : at+d.sector]
				}
				c.write(b, w.off+at, d.sector)
			}
		}
	}
	return &Disk{size: d.size, sector: d.sector, now: c, durable: maps.Clone(c)}
}

// Pages returns the offsets of all pages of 4 KiB that are not zeros on one of two disks of the same size, and differ.
func (d *Disk) Pages(o *Disk) (differ []int64) {
	for off, p := range d.now {
		if q := o.now[off]; q == nil || *q != *p {
			differ = append(differ, off)
		}
	}
	for off := range o.now {
		if d.now[off] == nil {
			differ = append(differ, off)
		}
	}
	return differ
}

func (c content) read(p []byte, off int64) {
	for len(p) > 0 {
		at := off % page
		n := min(len(p), int(page-at))
		if b := c[off-at]; b != nil {
			copy(p[:n], b[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// write replaces pages, which another content may share. A nil p is zeros.
func (c content) write(p []byte, off, n int64) {
	for n > 0 {
		at := off % page
		k := min(n, page-at)
		if p == nil && k == page {
			delete(c, off)
			off, n = off+k, n-k
			continue
		}
		var b [page]byte
		if old := c[off-at]; old != nil && k < page {
			b = *old
		}
		if p == nil {
			clear(b[at : at+k])
		} else {
			copy(b[at:], p[:k])
			p = p[k:]
		}
		if b == [page]byte{} {
			delete(c, off-at)
		} else {
			c[off-at] = &b
		}
		off, n = off+k, n-k
	}
}
