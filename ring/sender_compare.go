package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// firstReading is what the server knows of the one blob of an update from when it read it first, for its marks. Nothing
// changes it once it is complete.
type firstReading struct {
	sums [][sha256.Size]byte // of all leaves
	root []byte
}

// updates reports whether nodes compare what they have first.
func (s *sender) updates() bool { return s.cfg.Update && len(s.blobs) == 1 && leaf.In(s.blobs[0]) }

// compare reads the source for its marks.
func (s *sender) compare(work context.Context) {
	s.work.Go(func() {
		d, each := s.blobs[0], s.pool.MarkEvery()
		first, root := new(firstReading), sha256.New()
		open := func(ctx context.Context, off int64) (io.ReadCloser, error) { return s.cfg.Source.Open(ctx, d, off) }
		err := leafSums(work, d.Size, each, hashers(), open, func(sum [sha256.Size]byte) {
			root.Write(sum[:])
			first.sums = append(first.sums, sum)
			if end := int64(len(first.sums)) * each; end <= d.Size {
				s.mark(wire.Mark{Offset: end, Sum: sum[:]})
			}
		})
		if err != nil {
			failed := &SourceError{Err: err, Kept: !isWrong(err)}
			s.post(coordinator.EvSourceFailed{Err: failed, Kept: failed.Kept})
			return
		}
		first.root = root.Sum(nil)
		s.mark(wire.Mark{Offset: d.Size, Sum: first.root, Final: true})
		s.once.Store(first)
		s.post(coordinator.EvCompareRead{})
	})
}

// isWrong reports whether a source says that the bytes before an error were not what they should be.
func isWrong(err error) bool {
	var w interface{ Wrong() bool }
	return errors.As(err, &w) && w.Wrong()
}

// tells returns what is done with a sum of the store: nodes get it as a mark, or, if an update has read its source before, it is
// compared with what that had. Then the relay leaves out the leaves of common, which no node lacks, and the store takes the sums of
// these from the first reading.
func (s *sender) tells(st *relay.Store, common []*leaf.Set) func(wire.Mark) error {
	first := s.once.Load()
	if first == nil {
		return func(m wire.Mark) error {
			s.mark(m)
			return nil
		}
	}
	each := s.pool.MarkEvery()
	if common != nil {
		s.relay.Hold(func(b int) *leaf.Set { return common[b] })
		st.Known = func(b int, off int64) []byte {
			if !common[b].Has(off) {
				return nil
			}
			return first.sums[off/each][:]
		}
	}
	return func(m wire.Mark) error {
		was := first.root
		if !m.Final {
			was = first.sums[m.Offset/each-1][:]
		}
		if !bytes.Equal(was, m.Sum) {
			return fmt.Errorf("changed before byte %d since the nodes compared what they have with it", m.Offset)
		}
		return nil
	}
}
