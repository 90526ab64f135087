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

// sendFrames sends all of blob 0 in frames, with change in its first byte, until the link ends.
func (s *fedSession) sendFrames(to net.Conn, change byte) {
	const frame = 1 << 20
	for off := 0; off < len(s.data[0]); off += frame {
		buf := bytes.Clone(s.data[0][off:min(off+frame, len(s.data[0]))])
		if off == 0 {
			buf[0] ^= change
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
		go s.sendFrames(wrong, 1)
		synctest.Wait()
		if n := sink.stored(); n != leaf {
			t.Fatalf("%d bytes were written before the first mark, want %d", n, leaf)
		}
		mark(leaf, first, false)
		if s.m.Resetting() || s.m.Position(0).Accepted != 0 || len(sink.good) > 0 {
			t.Fatalf("a wrong first leaf: falling back %v, %+v, good %v", s.m.Resetting(), s.m.Position(0), sink.good)
		}
		go s.sendFrames(s.link(2), 0) // the mark is there already
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
