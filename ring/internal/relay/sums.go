package relay

import (
	"hash"
	"sync"
)

// SavedSums keeps copies of the states of hashes. Of each blob it has the state at the last good mark, and those
// at the marks behind it, which are not known to be good yet. Its zero value is empty.
type SavedSums struct {
	mu    sync.Mutex
	blobs map[int][]savedSum // by offset
}

// maxSaved is how many states of a blob are kept. Where more marks are awaited, a fallback hashes again from an earlier one.
const maxSaved = 4096

type savedSum struct {
	off int64
	h   hash.Cloner
}

func (s *SavedSums) save(blob int, off int64, h hash.Hash) {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		return // a fallback then hashes again from an earlier mark
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.blobs[blob]) < maxSaved {
		s.keep(blob, append(s.blobs[blob], savedSum{off, c}))
	}
}

func (s *SavedSums) keep(blob int, all []savedSum) {
	if s.blobs == nil {
		s.blobs = map[int][]savedSum{}
	}
	s.blobs[blob] = all
}

// Good notes that the mark at off is good: it drops all states before it.
func (s *SavedSums) Good(blob int, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.blobs[blob]
	for len(all) > 1 && all[1].off <= off {
		all = all[1:]
	}
	s.keep(blob, all)
}

// Back drops all states behind off.
func (s *SavedSums) Back(blob int, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.blobs[blob]
	for len(all) > 0 && all[len(all)-1].off > off {
		all = all[:len(all)-1]
	}
	s.keep(blob, all)
}

// last returns a copy of the newest state of a blob and its offset, or nil if there is none.
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
