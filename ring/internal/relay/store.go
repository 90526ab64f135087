package relay

import (
	"crypto/sha256"
	"hash"
	"io"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Store hashes the frames of a relay, blob after blob, beside the goroutine that
// receives them, and hands the same bytes to a writer. On the server it only hashes: its sums are
// the marks.
type Store struct {
	Relay *Relay
	Blobs []int // in travelling order
	// At is from where on a blob arrives; nil: from its first byte. What is there before is
	// opened by Held and hashed first.
	At   func(blob int) int64
	Held func(blob int, off int64) (io.ReadCloser, error)
	// Begin opens where a blob goes, from at on; nil: nowhere.
	Begin func(blob int, at int64) (io.Writer, error)
	// Sum takes the running SHA-256 at every mark and, with end, that of the blob.
	Sum func(blob int, off int64, sum []byte, end bool) error
	// Saved keeps what a fallback goes on from; nil: nothing.
	Saved *SavedSums

	loaded byte // so that what hash loads is of use
}

// hash adds b to h. Frames wait in the window, and are not in the processor's cache any more
// when their turn comes. SHA-256 hides none of that: loading a byte of each line before, all
// of which go on at once, makes it up to half as fast again.
func (s *Store) hash(h hash.Hash, b []byte) {
	const line, piece = 64, 32 << 10 // the piece fits into the smallest cache
	for len(b) > 0 {
		next, sum := b[:min(len(b), piece)], byte(0)
		for i := 0; i < len(next); i += line {
			sum ^= next[i]
		}
		s.loaded = sum
		h.Write(next)
		b = b[len(next):]
	}
}

// Run hashes and writes all blobs to their ends.
func (s *Store) Run() error {
	for _, b := range s.Blobs {
		if err := s.blob(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) blob(b int) error {
	meter := &s.Relay.meter
	defer meter.store.is(waitIn)
	h, off, at := sha256.New(), int64(0), int64(0)
	if s.At != nil {
		at = s.At(b)
	}
	var w io.Writer
	if s.Begin != nil {
		var err error
		if w, err = s.Begin(b, at); err != nil {
			return err
		}
	}
	if s.Saved != nil {
		if sum, o := s.Saved.last(b); sum != nil && o <= at {
			h, off = sum, o
		}
	}
	if off < at {
		if err := s.rehash(h, b, off, at); err != nil {
			return err
		}
		off = at
	}
	for {
		f, err := s.Relay.next(b, off)
		if err != nil {
			return err
		}
		if f == nil {
			return s.Sum(b, off, h.Sum(nil), true)
		}
		meter.store.is(waitCPU)
		s.hash(h, f.data)
		meter.hashed.Add(int64(len(f.data)))
		if w != nil {
			meter.store.is(waitDisk)
			if _, err := w.Write(f.data); err != nil {
				return wire.Errorf(wire.CodeStore, "write: %w", err)
			}
			meter.written.Add(int64(len(f.data)))
		}
		off = f.end()
		// No frame crosses a mark (wire.ParseHeader), so none is missed.
		if s.Relay.atMark(off) {
			if err := s.mark(h, b, off); err != nil {
				return err
			}
		}
		s.Relay.stored()
	}
}

func (s *Store) mark(h hash.Hash, b int, off int64) error {
	if s.Saved != nil {
		s.Saved.save(b, off, h)
	}
	return s.Sum(b, off, h.Sum(nil), false)
}

// rehash reads what is there of a blob already, from off to end.
func (s *Store) rehash(h hash.Hash, b int, off, end int64) error {
	r, err := s.Held(b, off)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, min(end, ioChunk))
	for off < end {
		s.Relay.meter.store.is(waitDisk)
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), end-off, s.Relay.toMark(off))])
		if err != nil {
			return wire.Errorf(wire.CodeStore, "read again what was there: %w", err)
		}
		s.Relay.meter.store.is(waitCPU)
		h.Write(buf[:n])
		if off += int64(n); s.Relay.atMark(off) {
			if err := s.mark(h, b, off); err != nil {
				return err
			}
		}
		if err := s.Relay.Err(); err != nil {
			return err
		}
	}
	return nil
}

// SavedSums keeps the state of the hash at marks that are not yet known to be good,
// and at the last one that is. Its zero value is empty.
type SavedSums struct {
	mu    sync.Mutex
	blobs map[int][]savedSum // by offset
}

type savedSum struct {
	off int64
	h   hash.Cloner
}

func (s *SavedSums) save(blob int, off int64, h hash.Hash) {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		return // it will be hashed again from further up
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(blob, append(s.blobs[blob], savedSum{off, c}))
}

func (s *SavedSums) keep(blob int, all []savedSum) {
	if s.blobs == nil {
		s.blobs = map[int][]savedSum{}
	}
	s.blobs[blob] = all
}

// Good drops what is before the mark at off.
func (s *SavedSums) Good(blob int, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.blobs[blob]
	for len(all) > 1 && all[1].off <= off {
		all = all[1:]
	}
	s.keep(blob, all)
}

// Back drops what is behind off.
func (s *SavedSums) Back(blob int, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.blobs[blob]
	for len(all) > 0 && all[len(all)-1].off > off {
		all = all[:len(all)-1]
	}
	s.keep(blob, all)
}

// last is the newest state that is kept, and its offset; nil: none is.
func (s *SavedSums) last(blob int) (hash.Hash, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.blobs[blob]
	if len(all) == 0 {
		return nil, 0
	}
	c, err := all[len(all)-1].h.Clone()
	if err != nil {
		return nil, 0
	}
	return c, all[len(all)-1].off
}
