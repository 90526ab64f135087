package ring

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// backSink is a Sink that has to be read back. Byte rot of each blob is another one once the blob is durable.
type backSink struct {
	*memSink
	rot  int64 // -1: none
	mu   sync.Mutex
	read int64
}

func (s *backSink) ReadsBack() bool { return true }

func (s *backSink) String() string { return "/dev/sdb" }

func (s *backSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.memSink.Begin(ctx, d, off)
	return &backWriter{w.(*memWriter), s}, err
}

func (s *backSink) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	r, err := s.memSink.Open(ctx, d, off)
	return io.NopCloser(readFunc(func(b []byte) (int, error) {
		n, err := r.Read(b)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.read += int64(n)
		return n, err
	})), err
}

type backWriter struct {
	*memWriter
	s *backSink
}

func (w *backWriter) Commit(context.Context, v1.Descriptor) error {
	w.memWriter.s.mu.Lock()
	defer w.memWriter.s.mu.Unlock()
	if b := w.memWriter.s.parts[w.i]; w.s.rot >= 0 && w.s.rot < int64(len(b)) {
		b[w.s.rot] ^= 1
	}
	return nil
}

// What storage lost after it said that it has it is found before the node says that it has everything, wherever it is, and
// fails only that node.
func TestReadBack(t *testing.T) {
	const size = 5<<20 + 5
	for _, inLeaves := range []bool{true, false} {
		for _, rot := range []int64{-1, 0, 3 << 20, size - 1} {
			src := newMemSource(false, random(1, size))
			if inLeaves {
				src.descs[0].MediaType = leaf.MediaType
			}
			var sinks []*backSink
			c := newCluster(t, 3, func(i int, cfg *NodeConfig) {
				s := &backSink{memSink: newMemSink(), rot: -1}
				if i == 1 {
					s.rot = rot
				}
				sinks = append(sinks, s)
				cfg.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
			})
			r, err := send(t, c.config(src))
			if err != nil {
				t.Fatal(err)
			}
			for i, row := range r.Nodes {
				want := Committed
				if i == 1 && rot >= 0 {
					want = Failed
				}
				if row.State != want || want == Failed && (row.Code != "readback" || !strings.HasPrefix(row.Reason, "/dev/sdb reads back with other bytes")) {
					t.Errorf("leaves %v, byte %d: %s is %s, %s: %s", inLeaves, rot, row.Node, row.State, row.Code, row.Reason)
				}
				if row.State == Committed && sinks[i].read < size {
					t.Errorf("leaves %v, byte %d: %s read back %d bytes", inLeaves, rot, row.Node, sinks[i].read)
				}
			}
		}
	}
}
