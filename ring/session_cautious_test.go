package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net"
	"testing"
	"testing/synctest"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// cautiousSink has a Writer that is Cautious.
type cautiousSink struct {
	*memSink
	good []int64 // what Good said
}

type cautiousWriter struct {
	Writer
	s *cautiousSink
}

func (s *cautiousSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.memSink.Begin(ctx, d, off)
	return &cautiousWriter{w, s}, err
}

func (w *cautiousWriter) Good(off int64) { w.s.good = append(w.s.good, off) }

func (s *cautiousSink) stored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parts[0])
}

// sendFrames sends blob 0 from an offset on in frames, with another byte at wrong if that is not negative, until the link
// ends.
func (s *fedSession) sendFrames(to net.Conn, from, wrong int) {
	const frame = 1 << 20
	for off := from; off < len(s.data[0]); off += frame {
		buf := bytes.Clone(s.data[0][off:min(off+frame, len(s.data[0]))])
		if i := wrong - off; i >= 0 && i < len(buf) {
			buf[i] ^= 1
		}
		var hdr [wire.HeaderSize]byte
		wire.PutData(&hdr, 0, int64(off), buf)
		if _, err := to.Write(append(hdr[:], buf...)); err != nil {
			return
		}
	}
}

// A cautious writer gets nothing from behind the first mark before it is known to be right, and the node falls back from a
// first leaf that is wrong while the store waits for that.
func TestCautious(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leaf = 4 << 20
		data := random(1, 2*leaf+100)
		sum, first := sha256.Sum256(data), sha256.Sum256(data[:leaf])
		sink := &cautiousSink{memSink: newMemSink()}
		s := newFedSessionTo(t, sink, []v1.Descriptor{{Size: int64(len(data)), Digest: digest.FromBytes(data)}}, [][]byte{data})
		mark := func(off int, sum [32]byte, final bool) {
			s.step(member.EvMsg{Msg: &wire.Marks{Marks: []wire.Mark{{Offset: int64(off), Sum: sum[:], Final: final}}}})
			synctest.Wait()
		}
		s.step(member.EvMsg{Msg: &wire.Start{}})
		wrong := s.link(1)
		go s.sendFrames(wrong, 0, 0)
		synctest.Wait()
		if n := sink.stored(); n != leaf {
			t.Fatalf("%d bytes were written before the first mark, want %d", n, leaf)
		}
		mark(leaf, first, false)
		if s.m.Resetting() || s.m.Position(0).Accepted != 0 || len(sink.good) > 0 {
			t.Fatalf("a wrong first leaf: falling back %v, %+v, good %v", s.m.Resetting(), s.m.Position(0), sink.good)
		}
		go s.sendFrames(s.link(2), 0, -1) // the mark is there already
		synctest.Wait()
		if n := sink.stored(); n != len(data) || len(sink.good) != 1 || sink.good[0] != leaf {
			t.Errorf("after the first mark %d bytes were written of %d, good %v", n, len(data), sink.good)
		}
		mark(len(data), sum, true)
		if s.m.Phase() != member.Verified || sink.good[len(sink.good)-1] != int64(len(data)) {
			t.Errorf("phase %d: %v, good %v", s.m.Phase(), s.m.Failure(), sink.good)
		}
	})
}

// holdingSink has a Writer that is Holding.
type holdingSink struct {
	cautiousSink
	data []byte // of which Begin goes on with what is right
}

type holdingWriter struct{ *cautiousWriter }

func (s *holdingSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.cautiousSink.Begin(ctx, d, off)
	if err != nil {
		return nil, err
	}
	s.parts[0] = bytes.Clone(s.data[:off])
	return holdingWriter{w.(*cautiousWriter)}, nil
}

const aheadOfMark = 1 << 20 // less than is needed, and therefore 4 MiB

func (holdingWriter) Ahead() int64 { return aheadOfMark }

// A holding writer is never more than one mark ahead of what is known to be right, and the node falls back from a wrong leaf
// in the middle while the store waits.
func TestHolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leaf = 4 << 20
		data := random(1, 3*leaf+100)
		sink := &holdingSink{cautiousSink{memSink: newMemSink()}, data}
		s := newFedSessionTo(t, sink, []v1.Descriptor{{Size: int64(len(data)), Digest: digest.FromBytes(data)}}, [][]byte{data})
		mark := func(off int, final bool) {
			t.Helper()
			sum := sha256.Sum256(data[:off])
			s.step(member.EvMsg{Msg: &wire.Marks{Marks: []wire.Mark{{Offset: int64(off), Sum: sum[:], Final: final}}}})
			synctest.Wait()
		}
		stored := func(want int) {
			t.Helper()
			if n := sink.stored(); n != want {
				t.Fatalf("%d bytes were written, want %d", n, want)
			}
		}
		s.step(member.EvMsg{Msg: &wire.Start{}})
		go s.sendFrames(s.link(1), 0, leaf+5)
		synctest.Wait()
		stored(leaf)
		mark(leaf, false)
		stored(2 * leaf)
		mark(2*leaf, false)
		if s.m.Position(0).Accepted != leaf {
			t.Fatalf("did not fall back: %+v", s.m.Position(0))
		}
		go s.sendFrames(s.link(2), leaf, -1)
		synctest.Wait()
		stored(3 * leaf) // the second leaf is right by now
		mark(3*leaf, false)
		stored(len(data))
		mark(len(data), true)
		if s.m.Phase() != member.Verified {
			t.Errorf("phase %d: %v", s.m.Phase(), s.m.Failure())
		}
	})
}
