package ringtest

import (
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// testCompared has a second transfer compare what the first one published (ring.Comparer): all of it is right, or its second half
// has to be brought.
func testCompared(t *testing.T, s *sinkTest) {
	sink := s.New()
	_, compares := sink.(ring.Comparer)
	s.close(t, sink)
	if !compares {
		return // a sink need not compare
	}
	s.transfer(t)
	for _, half := range []bool{false, true} {
		sink := s.New()
		if _, _, err := sink.Offer(s.ctx, s.Blobs); err != nil {
			t.Fatalf("offer to compare: %v", err)
		}
		held := true
		for i, d := range s.Blobs {
			held = s.compare(t, sink, i, d, half) && held
		}
		if held { // else what is published may be made anew
			s.prepare(t, sink, !half)
		} else if p, ok := sink.(ring.Preparer); ok {
			if _, err := p.Prepare(s.ctx, s.Blobs); err != nil {
				t.Fatalf("prepare: %v", err)
			}
		}
		if err := sink.Publish(s.ctx); err != nil {
			t.Fatalf("publish: %v", err)
		}
		s.close(t, sink)
		s.published(t, true)
	}
}

// transfer brings and publishes all blobs.
func (s *sinkTest) transfer(t *testing.T) {
	sink := s.offered(t)
	for i := range s.Blobs {
		s.commit(t, i, s.write(t, sink, i, 0, s.size(i)))
	}
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.close(t, sink)
}

// compare has sink compare blob i, and brings its second half where that is asked for. It reports whether the sink
// compared, and something was right.
func (s *sinkTest) compare(t *testing.T, sink ring.Sink, i int, d v1.Descriptor, half bool) bool {
	t.Helper()
	c, size := sink.(ring.Comparer), s.size(i)
	n, err := c.Compare(s.ctx, d)
	if err != nil {
		t.Fatalf("compare blob %d: %v", i, err)
	}
	if n == 0 {
		s.commit(t, i, s.write(t, sink, i, 0, size))
		return false
	}
	o := sink.(ring.Opener)
	if got := read(t, o, d, 0, s.Bytes[i]); n != size || !got.whole() {
		t.Fatalf("blob %d compares %d bytes: %s", i, n, got)
	}
	from := size
	if half {
		from /= 2
	}
	if c, ok := sink.(ring.Compared); ok {
		if half {
			from -= from % leaf.Size
		}
		c.Compared(d, leaf.SetOf(size, leaf.Size, func(off int64) bool { return off < from }))
	}
	w, err := sink.Begin(s.ctx, d, from)
	if err != nil {
		t.Fatalf("begin of blob %d at %d: %v", i, from, err)
	}
	if !c.Same(d) && from == size {
		t.Errorf("blob %d is not sure to be what was compared", i)
	}
	if got := read(t, o, d, 0, s.Bytes[i]); got.same < from {
		t.Errorf("what was compared of blob %d: %s", i, got)
	}
	writeChunks(t, w, s.Bytes[i][from:])
	s.commit(t, i, w)
	return from > 0
}
