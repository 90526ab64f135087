package ringtest

import (
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

// testReplay reads back what is stored, while it is written and once it is complete.
func testReplay(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	defer s.close(t, sink)
	o, ok := sink.(ring.Opener)
	if !ok {
		return // a sink need not be able to replay
	}
	for i, d := range s.Blobs {
		n := s.size(i)
		half := n / 2
		w := s.write(t, sink, i, 0, half)
		for _, off := range []int64{0, half / 2, half} {
			if got := read(t, o, d, off, s.Bytes[i][off:half]); !got.whole() {
				t.Errorf("half of blob %d from %d: %s", i, off, got)
			}
		}
		if r, err := o.Open(s.ctx, d, half+1); err == nil {
			t.Errorf("blob %d opened beyond what is stored", i)
			r.Close()
		}
		// A reader beside the writer sees what was written so far, and then also what comes after it was opened.
		r, err := o.Open(s.ctx, d, 0)
		if err != nil {
			t.Fatalf("open of blob %d: %v", i, err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := read(t, o, d, 0, s.Bytes[i]); got.same < got.all || got.all < half {
				t.Errorf("blob %d beside its writer: %s", i, got)
			}
		})
		writeChunks(t, w, s.Bytes[i][half:])
		wg.Wait()
		s.commit(t, i, w)
		if got, err := compared(r, s.Bytes[i]); err != nil || !got.whole() {
			t.Errorf("blob %d by a reader that was open before: %s, %v", i, got, err)
		}
		r.Close()
		if got := read(t, o, d, half, s.Bytes[i][half:]); !got.whole() {
			t.Errorf("complete blob %d from %d: %s", i, half, got)
		}
	}
}

// testKeep has a second transfer go on from what the first one left.
func testKeep(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	k, ok := sink.(ring.Keeper)
	if !ok || s.InLeaves {
		s.close(t, sink)
		return // a sink need not keep anything
	}
	most := 0 // the largest blob, of which most can be kept
	for i := range s.Blobs {
		if s.size(i) > s.size(most) {
			most = i
		}
	}
	half := s.size(most) / 2
	if err := s.write(t, sink, most, 0, s.size(most)*3/4).Abort(half); err != nil {
		t.Fatalf("abort: %v", err)
	}
	k.Keep()
	s.close(t, sink)
	s.published(t, false)

	for _, again := range []bool{true, false} { // a transfer that only asks changes nothing
		sink = s.New()
		held, _, err := sink.Offer(s.ctx, s.Blobs)
		if err != nil {
			t.Fatalf("offer after a part was kept: %v", err)
		}
		if held[most] != half {
			t.Fatalf("%d bytes were kept, it claims %d", half, held[most])
		}
		if again {
			sink.(ring.Keeper).Keep()
			s.close(t, sink)
		}
	}
	for i, d := range s.Blobs {
		from := int64(0)
		if i == most {
			from = half
		}
		w, err := sink.Begin(s.ctx, d, from)
		if err != nil {
			t.Fatalf("begin of blob %d at %d: %v", i, from, err)
		}
		if o, ok := sink.(ring.Opener); ok {
			if got := read(t, o, d, 0, s.Bytes[i][:from]); !got.whole() {
				t.Errorf("what was kept of blob %d: %s", i, got)
			}
		}
		writeChunks(t, w, s.Bytes[i][from:])
		s.commit(t, i, w)
	}
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.close(t, sink)
	s.published(t, true)
}
