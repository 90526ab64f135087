package relay

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// zeros are what runs of zeros are written, hashed and compared with. It fits into a processor's cache.
var zeros [64 << 10]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// placer is what a writer of a blob in leaves may be.
type placer interface {
	io.WriterAt
	Zero(off, n int64) error
}

// writeZeros writes n zeros.
func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		k, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// zeroHashes are SHA-256 hashes of 0, 1, 2 and more times zeros.
var zeroHashes struct {
	sync.Mutex
	all []hash.Cloner
}

// zeroHash returns the SHA-256 hash of the first of n zeros, and how many of them are left to be hashed. n is no more than the
// length of a leaf, so that there are few such hashes.
func zeroHash(n int64) (of hash.Hash, left int64) {
	z := &zeroHashes
	z.Lock()
	defer z.Unlock()
	if z.all == nil {
		z.all = []hash.Cloner{sha256.New().(hash.Cloner)}
	}
	k := int(n / int64(len(zeros)))
	for len(z.all) <= k {
		next, err := z.all[len(z.all)-1].Clone()
		if err != nil {
			return sha256.New(), n
		}
		next.Write(zeros[:])
		z.all = append(z.all, next)
	}
	c, err := z.all[k].Clone()
	if err != nil {
		return sha256.New(), n
	}
	return c, n % int64(len(zeros))
}

// firstRun returns how many of the first bytes of b, which begins at byte off of its blob, are all zeros or not, by pieces that
// end at multiples of unit.
func firstRun(b []byte, off int64, unit int) (n int, zero bool) {
	for n < len(b) {
		end := min(n+unit-int((off+int64(n))%int64(unit)), len(b))
		z := isZero(b[n:end])
		if n > 0 && z != zero {
			break
		}
		n, zero = end, z
	}
	return n, zero
}

// from is the part of a frame from byte pos of its blob on.
func (f *frame) from(pos int64) frame {
	part := *f
	skip := int(pos - f.off)
	if skip == 0 {
		return part
	}
	part.off, part.n = pos, f.n-skip
	if f.data == nil {
		wire.PutZero(&part.hdr, f.blob, pos, part.n)
	} else {
		part.data = f.data[skip:]
		wire.PutData(&part.hdr, f.blob, pos, part.data)
	}
	return part
}

// shorten has the frame end where data does, which are its first bytes. Zeros stay as they are.
func (f *frame) shorten(data []byte) {
	short := len(data) < len(f.data)
	if f.data = data; short {
		f.n = len(data)
		wire.PutData(&f.hdr, f.blob, f.off, data)
	}
}

// send writes a frame to a link.
func (r *Relay) send(l *outLink, f *frame, meter *activity) error {
	switch {
	case f.data == nil && l.zeros && l.owed == 0:
		return r.writeZeros(l, &f.hdr, f.n, meter)
	case f.data == nil:
		return r.sendZeros(l, f.blob, f.off, f.n, meter)
	case !l.zeros && wire.More(&f.hdr): // the receiver knows no flags
		return r.sendData(l, f.blob, f.off, f.data, meter)
	}
	return r.writeData(l, &f.hdr, f.data, meter)
}

// sendData writes bytes of a blob to a link, behind which nothing is sure to come.
func (r *Relay) sendData(l *outLink, blob uint32, off int64, data []byte, meter *activity) error {
	var hdr [wire.HeaderSize]byte
	wire.PutData(&hdr, blob, off, data)
	return r.writeData(l, &hdr, data, meter)
}

// sendZeros writes a run of zeros to a link: as DATA as far as the receiver may wait for bytes, or knows no ZERO, and the
// rest as ZERO.
func (r *Relay) sendZeros(l *outLink, blob uint32, off int64, n int, meter *activity) error {
	bytes := n
	if l.zeros {
		bytes = min(n, l.owed)
	}
	for bytes > 0 {
		k := min(bytes, len(zeros), r.sizes().Chunk)
		if err := r.sendData(l, blob, off, zeros[:k], meter); err != nil {
			return err
		}
		bytes, off, n = bytes-k, off+int64(k), n-k
	}
	if n == 0 {
		return nil
	}
	var hdr [wire.HeaderSize]byte
	wire.PutZero(&hdr, blob, off, n)
	return r.writeZeros(l, &hdr, n, meter)
}

func (r *Relay) writeData(l *outLink, hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error {
	if err := l.conn.writeFrame(hdr, data, meter); err != nil {
		return err
	}
	if l.owed = max(0, l.owed-len(data)); wire.More(hdr) {
		l.owed = max(l.owed, len(data))
	}
	l.acks.wrote(wire.HeaderSize + len(data))
	r.sent.Add(int64(len(data)))
	r.win.pool.sent.Add(int64(len(data)))
	return nil
}

func (r *Relay) writeZeros(l *outLink, hdr *[wire.HeaderSize]byte, n int, meter *activity) error {
	l.acks.zeros(n) // before they are written: a report may come in between
	return l.conn.writeFrame(hdr, nil, meter)
}

// zeroAcks tells how many bytes of zeros the receiver of a link has acknowledged: those of a ZERO frame when bytes of its
// header may be among the acknowledged ones. It may tell of them a little early, never late.
type zeroAcks struct {
	mu    sync.Mutex
	bytes int64     // so many were written at least
	runs  []sentRun // those that are not acknowledged, oldest first
	acked int64     // bytes of those that are
}

// sentRun is one ZERO frame, or several that were sent within ackUnit bytes. at is how many bytes were written before, at
// least.
type sentRun struct{ at, n int64 }

const ackUnit = 1 << 10

// wrote notes that so many bytes were written. TLS makes more of them, which counts for nothing.
func (z *zeroAcks) wrote(bytes int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.bytes += int64(bytes)
}

// zeros notes that a ZERO frame is written next, which stands for n bytes.
func (z *zeroAcks) zeros(n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if k := len(z.runs) - 1; k >= 0 && z.bytes-z.runs[k].at < ackUnit {
		z.runs[k].n += int64(n)
	} else {
		z.runs = append(z.runs, sentRun{z.bytes, int64(n)})
	}
	z.bytes += wire.HeaderSize
}

// with returns acked, how many bytes the transport says are acknowledged, and the bytes of zeros with them.
func (z *zeroAcks) with(acked int64) int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	for len(z.runs) > 0 && z.runs[0].at < acked {
		z.acked += z.runs[0].n
		z.runs = z.runs[1:]
	}
	return acked + z.acked
}
