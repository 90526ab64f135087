package ring

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// oldSink is storage that has other bytes in place of a blob, which an update changes where they are, and that has to be read
// back, such as a disk.
type oldSink struct {
	mu          sync.Mutex
	data        []byte
	read, wrote int64
	ends        int64 // when it is compared, only so many bytes are left of it; 0: all
	right       *leaf.Set
	told, begun bool
}

func (s *oldSink) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	return make([]int64, len(blobs)), -1, nil
}
func (s *oldSink) ReadsBack() bool { return true }

func (s *oldSink) Compare(context.Context, v1.Descriptor) (int64, error) {
	return int64(len(s.data)), nil
}

func (s *oldSink) Same(v1.Descriptor) bool { return true }

func (s *oldSink) Compared(_ v1.Descriptor, right *leaf.Set) { s.right, s.told = right, !s.begun }

func (s *oldSink) Begin(context.Context, v1.Descriptor, int64) (Writer, error) {
	s.begun = true
	return s, nil
}

func (s *oldSink) Open(_ context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(readFunc(func(p []byte) (int, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ends > 0 && !s.begun {
			if off >= s.ends {
				return 0, io.EOF
			}
			p = p[:min(int64(len(p)), s.ends-off)]
		}
		n := copy(p, s.data[off:])
		off += int64(n)
		s.read += int64(n)
		return n, nil
	})), nil
}

func (s *oldSink) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote += int64(len(p))
	return copy(s.data[off:], p), nil
}

func (s *oldSink) Zero(off, n int64) error {
	_, err := s.WriteAt(make([]byte, n), off)
	return err
}
func (s *oldSink) Write([]byte) (int, error)                              { panic("a Placer is not written to") }
func (s *oldSink) Commit(context.Context, v1.Descriptor) error            { return nil }
func (s *oldSink) Abort(int64) error                                      { return nil }
func (s *oldSink) Publish(context.Context) error                          { return nil }
func (s *oldSink) Prepare(context.Context, []v1.Descriptor) (bool, error) { return s.wrote == 0, nil }

// A Sink is told which leaves are right before it begins to write, and of these none is brought, or read a second time to be
// read back. One that has nothing to change holds what is sent. What became shorter while it was compared is brought.
func TestCompared(t *testing.T) {
	const size = 9<<20 + 5
	src := newMemSource(false, random(1, size))
	src.descs[0].MediaType = leaf.MediaType
	for _, tt := range []struct {
		wrong []int64 // where bytes differ
		right []bool  // which leaves do not. The last one is not whole and has no mark.
		ends  int64
	}{
		{nil, []bool{true, true, true}, 0},
		{[]int64{leaf.Size + 7}, []bool{true, false, true}, 0},
		{[]int64{0, size - 1}, []bool{false, true, false}, 0},
		{nil, []bool{false, false, false}, 7},
	} {
		s := &oldSink{data: bytes.Clone(src.blobs[0]), ends: tt.ends}
		if tt.ends > 0 {
			clear(s.data[tt.ends:])
		}
		for _, at := range tt.wrong {
			s.data[at] ^= 1
		}
		c := newCluster(t, 1, func(_ int, cfg *NodeConfig) {
			cfg.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
		})
		cfg := c.config(src)
		cfg.Update = true
		r, err := send(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var lacks int64
		for k, right := range tt.right {
			off := int64(k) * leaf.Size
			if !right {
				lacks += min(leaf.Size, size-off)
			}
			if !s.told || s.right.Has(off) != right {
				t.Errorf("%d: told %v that leaf %d is right: %v", tt.wrong, s.told, k, s.right.Has(off))
			}
		}
		state := Committed
		if lacks == 0 {
			state = Held
		}
		if row := r.Nodes[0]; row.State != state || row.Bytes != lacks {
			t.Errorf("%d: %+v, want %s and %d bytes", tt.wrong, row, state, lacks)
		}
		read := lacks + size
		if tt.ends > 0 {
			read = lacks + tt.ends
		}
		if s.wrote != lacks || s.read != read || !bytes.Equal(s.data, src.blobs[0]) {
			t.Errorf("%d: wrote %d bytes of %d, and read %d of %d", tt.wrong, s.wrote, lacks, s.read, read)
		}
	}
}
