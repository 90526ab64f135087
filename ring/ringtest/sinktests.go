package ringtest

import (
	"context"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring"
)

func testTransfer(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	for i := range s.Blobs {
		s.commit(t, i, s.write(t, sink, i, 0, s.size(i)))
		s.published(t, false)
	}
	s.prepare(t, sink, false)
	s.published(t, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.published(t, true)
	s.close(t, sink)
	s.published(t, true)
}

func testCommitBesideWrite(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	var wg sync.WaitGroup
	for i := range s.Blobs {
		w := s.write(t, sink, i, 0, s.size(i))
		wg.Go(func() { s.commit(t, i, w) })
	}
	wg.Wait()
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.close(t, sink)
	s.published(t, true)
}

func testOffer(t *testing.T, s *sinkTest) {
	s.close(t, s.offered(t))
	s.published(t, false)
}

func testCloseWithoutPublish(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	for i := range s.Blobs {
		s.commit(t, i, s.write(t, sink, i, 0, s.size(i)))
	}
	s.prepare(t, sink, false)
	s.close(t, sink)
	s.published(t, false)
}

func testCloseWhileKept(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	n := s.size(0) / 2
	if err := s.write(t, sink, 0, 0, n).Abort(n); err != nil {
		t.Errorf("abort: %v", err)
	}
	s.close(t, sink)
	s.published(t, false)
}

func testAbort(t *testing.T, s *sinkTest) {
	if s.OneWay {
		return // what was written to a stream cannot be taken back
	}
	sink := s.offered(t)
	for i := range s.Blobs {
		if err := s.write(t, sink, i, 0, s.size(i)/2).Abort(0); err != nil {
			t.Errorf("abort of blob %d: %v", i, err)
		}
	}
	s.close(t, sink)
	s.published(t, false)
}

func testContinue(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	for i := range s.Blobs {
		n := s.size(i)
		keep := n / 2
		written := n * 3 / 4
		if s.OneWay {
			written = keep
		}
		if err := s.write(t, sink, i, 0, written).Abort(keep); err != nil {
			t.Errorf("abort of blob %d: %v", i, err)
		}
		s.commit(t, i, s.write(t, sink, i, keep, n))
	}
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.close(t, sink)
	s.published(t, true)
}

func testAgain(t *testing.T, s *sinkTest) {
	sink := s.offered(t)
	_, prepares := sink.(ring.Preparer)
	if !prepares || s.Renews {
		s.close(t, sink)
		return // a sink need not have anything to prepare
	}
	for i := range s.Blobs {
		s.commit(t, i, s.write(t, sink, i, 0, s.size(i)))
	}
	s.prepare(t, sink, false)
	if err := sink.Publish(s.ctx); err != nil {
		t.Fatalf("publish: %v", err)
	}
	s.close(t, sink)

	sink = s.New()
	held, _, err := sink.Offer(s.ctx, s.Blobs)
	if err != nil {
		t.Fatalf("second offer: %v", err)
	}
	for i, n := range held {
		if s.Compares {
			s.commit(t, i, s.write(t, sink, i, min(n, s.size(i)/2), s.size(i)))
		} else if n != s.size(i) {
			t.Errorf("second offer holds %d of the %d bytes of blob %d", n, s.size(i), i)
		}
	}
	s.prepare(t, sink, true)
	s.close(t, sink)
	s.published(t, true)
}

func testCancelled(t *testing.T, s *sinkTest) {
	gone, cancel := context.WithCancel(s.ctx)
	cancel()
	sink := s.New()
	defer s.close(t, sink)
	if s.Published == nil {
		return
	}
	if _, _, err := sink.Offer(gone, s.Blobs); err == nil {
		t.Error("offer with a context that is done worked")
	}
	if w, err := sink.Begin(gone, s.Blobs[0], 0); err == nil {
		w.Abort(0)
		t.Error("begin with a context that is done worked")
	}
}

func testWrongSize(t *testing.T, s *sinkTest) {
	if s.Published == nil {
		return
	}
	sink := s.offered(t)
	w := s.write(t, sink, 0, 0, s.size(0)-1)
	if err := w.Commit(s.ctx, s.Blobs[0]); err == nil {
		t.Error("a blob that lacks a byte was committed")
	} else if !s.OneWay {
		if err := w.Abort(0); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
	s.close(t, sink)
	s.published(t, false)
}
