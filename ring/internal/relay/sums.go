package relay

import (
	"hash"
	"sync"
)

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
