package ring

import (
	"crypto/sha256"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// store hashes the frames of a relay, blob after blob, beside the goroutine that
// receives them, and hands the same bytes to a writer. On the server it only hashes: its sums are
// the marks.
type store struct {
	relay *relay
	blobs []int // in travelling order
	// begin opens where a blob goes; nil: nowhere.
	begin func(blob int) (io.Writer, error)
	// sum takes the running SHA-256 at every mark and, with end, that of the blob.
	sum func(blob int, off int64, sum []byte, end bool) error
}

func (s *store) run() error {
	for _, b := range s.blobs {
		if err := s.blob(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) blob(b int) error {
	var w io.Writer
	if s.begin != nil {
		var err error
		if w, err = s.begin(b); err != nil {
			return err
		}
	}
	h := sha256.New()
	var off int64
	for {
		f, err := s.relay.next(b, off)
		if err != nil {
			return err
		}
		if f == nil {
			return s.sum(b, off, h.Sum(nil), true)
		}
		h.Write(f.data)
		if w != nil {
			if _, err := w.Write(f.data); err != nil {
				return failf(CodeStore, "write: %w", err)
			}
		}
		off = f.end()
		// No frame crosses a mark (wire.ParseHeader), so none is missed.
		if off%wire.MarkEvery == 0 {
			if err := s.sum(b, off, h.Sum(nil), false); err != nil {
				return err
			}
		}
		s.relay.stored()
	}
}
