package ringtest

import (
	"bytes"
	"crypto/subtle"
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
		subtle.XORBytes(wrong[good:], wrong[good:], bytes.Repeat([]byte{0xff}, len(wrong)))
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

// place brings b from byte off on, in pieces of odd sizes. Zeros in front of a piece come with Zero, and a piece in four ends
// at the first zero in it.
func place(t *testing.T, p ring.Placer, b []byte, off int64) {
	t.Helper()
	for k := 0; off < int64(len(b)); k++ {
		piece := b[off:min(int64(len(b)), off+65537)]
		if zeros := int64(len(piece) - len(bytes.TrimLeft(piece, "\x00"))); zeros > 0 {
			if err := p.Zero(off, zeros); err != nil {
				t.Fatalf("zeros at %d: %v", off, err)
			}
			off += zeros
			continue
		}
		if z := bytes.IndexByte(piece, 0); z > 0 && k%4 == 0 {
			piece = piece[:z]
		}
		if m, err := p.WriteAt(piece, off); m != len(piece) || err != nil {
			t.Fatalf("write of %d bytes at %d: %d, %v", len(piece), off, m, err)
		}
		off += int64(len(piece))
	}
}
