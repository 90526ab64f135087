package ringtest

import (
	"bytes"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// testPlaced brings the blobs with the methods of ring.Placer, over bytes of an attempt before that were all wrong.
func testPlaced(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	defer s.close(t, sink)
	for i, d := range s.Blobs {
		w, err := sink.Begin(s.ctx, d, 0)
		if err != nil {
			t.Fatalf("begin of blob %d: %v", i, err)
		}
		p, ok := w.(ring.Placer)
		if !ok {
			if err := w.Abort(0); err != nil && !s.OneWay {
				t.Errorf("abort of blob %d: %v", i, err)
			}
			return // a writer need not place
		}
		good := min(1, s.size(i)) // Abort(0) may remove everything, and then no wrong byte would be left to overwrite
		wrong := bytes.Clone(s.Bytes[i])
		for k := range wrong[good:] {
			wrong[good:][k] ^= 0xff
		}
		place(t, p, wrong, 0)
		if err := w.Abort(good); err != nil {
			t.Fatalf("abort of blob %d: %v", i, err)
		}
		if w, err = sink.Begin(s.ctx, d, good); err != nil {
			t.Fatalf("second begin of blob %d: %v", i, err)
		}
		place(t, w.(ring.Placer), s.Bytes[i], good)
		s.commit(t, i, w)
	}
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.published(t, true)
}

// place brings b from byte off on, its runs of zeros with Zero, in pieces of odd sizes.
func place(t *testing.T, p ring.Placer, b []byte, off int64) {
	t.Helper()
	for n := int64(len(b)); off < n; {
		zero := b[off] == 0
		end := off + 1
		for end < n && (b[end] == 0) == zero && end-off < 65537 {
			end++
		}
		if zero {
			if err := p.Zero(off, end-off); err != nil {
				t.Fatalf("zeros at %d: %v", off, err)
			}
		} else if m, err := p.WriteAt(b[off:end], off); int64(m) != end-off || err != nil {
			t.Fatalf("write of %d bytes at %d: %d, %v", end-off, off, m, err)
		}
		off = end
	}
}
