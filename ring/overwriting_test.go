package ring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// diskSink is a Sink that keeps its first leaf in memory, as a disk does, and says what it is.
type diskSink struct {
	*overwriter
	state atomic.Value // TargetState
}

func (s *diskSink) TargetState() TargetState { return s.state.Load().(TargetState) }

func (s *diskSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.overwriter.Begin(ctx, d, off)
	return &diskWriter{w, s, off}, err
}

func (s *diskSink) Publish(ctx context.Context) error {
	err := s.overwriter.Publish(ctx)
	s.state.Store(TargetComplete)
	if err != nil {
		s.state.Store(TargetUnknown)
	}
	return err
}

type diskWriter struct {
	Writer
	s   *diskSink
	off int64
}

func (w *diskWriter) Good(int64) {}

func (w *diskWriter) Write(p []byte) (int, error) {
	if w.off += int64(len(p)); w.off > 4<<20 {
		w.s.state.Store(TargetOverwritten)
	}
	return w.Writer.Write(p)
}

// brokenSource cannot be read from byte at on.
type brokenSource struct {
	*memSource
	at int64
}

func (s *brokenSource) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	r, err := s.memSource.Open(ctx, d, off)
	return io.NopCloser(readerFunc(func(p []byte) (int, error) {
		if off >= s.at {
			return 0, syscall.EIO
		}
		n, err := r.Read(p[:min(int64(len(p)), s.at-off)])
		off += int64(n)
		return n, err
	})), err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Every row says what became of the disk.
func TestTargetStates(t *testing.T) {
	const size, slowly = 12 << 20, 12 * time.Second
	for name, tt := range map[string]struct {
		broken int64         // the byte from which on the source cannot be read
		in     time.Duration // how long all of it takes
		edit   func(c *memCluster, b *diskSink)
		a, b   TargetState
	}{
		"well":                      {size + 1, slowly, func(*memCluster, *diskSink) {}, TargetComplete, TargetComplete},
		"the source breaks early":   {3 << 20, slowly, func(*memCluster, *diskSink) {}, TargetUntouched, TargetUntouched},
		"the source breaks":         {9 << 20, slowly, func(*memCluster, *diskSink) {}, TargetOverwritten, TargetOverwritten},
		"the source breaks at once": {11 << 20, 600 * time.Millisecond, func(*memCluster, *diskSink) {}, TargetOverwritten, TargetOverwritten},
		"nobody confirms": {size + 1, slowly, func(c *memCluster, _ *diskSink) {
			c.cfg.Confirm = func(context.Context, []Row) error { return errors.New("no") }
		}, TargetUntouched, TargetUntouched},
		"a node dies":                   {size + 1, slowly, func(c *memCluster, _ *diskSink) { time.AfterFunc(9*time.Second, func() { c.net.Kill("b") }) }, TargetComplete, TargetOverwritten},
		"a node dies before it says so": {size + 1, slowly, func(c *memCluster, _ *diskSink) { time.AfterFunc(4600*time.Millisecond, func() { c.net.Kill("b") }) }, TargetComplete, TargetUnknown},
		"a node cannot write": {size + 1, slowly, func(_ *memCluster, b *diskSink) {
			b.fail = func(what string, _ int) error {
				if what == "write" && b.TargetState() == TargetOverwritten {
					return syscall.EIO
				}
				return nil
			}
		}, TargetComplete, TargetOverwritten},
		"a node cannot begin": {size + 1, slowly, func(_ *memCluster, b *diskSink) {
			b.fail = func(what string, _ int) error { return map[string]error{"begin": syscall.EIO}[what] }
		}, TargetComplete, TargetUntouched},
		"a node cannot publish": {size + 1, slowly, func(_ *memCluster, b *diskSink) {
			b.fail = func(what string, _ int) error { return map[string]error{"publish": syscall.EIO}[what] }
		}, TargetComplete, TargetUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := paced(size, tt.in)
				c := newMemCluster(t, src)
				c.cfg.Source = &brokenSource{src, tt.broken}
				c.cfg.Confirm = func(context.Context, []Row) error { return nil }
				var sinks []*diskSink
				for _, o := range overwriters(c, 2) {
					s := &diskSink{overwriter: o}
					s.state.Store(TargetUntouched)
					o.node.take(t, s)
					sinks = append(sinks, s)
				}
				tt.edit(c, sinks[1])
				r, _ := c.send()
				if a, b := r.Nodes[0].Target, r.Nodes[1].Target; a != tt.a || b != tt.b {
					t.Errorf("%s (%s: %s) and %s (%s: %s), want %s and %s", a, r.Nodes[0].State, r.Nodes[0].Reason, b, r.Nodes[1].State, r.Nodes[1].Reason, tt.a, tt.b)
				}
			})
		})
	}
}

// brokenDisk is a disk that is updated. What it has cannot be read a second time from the second leaf on, once the first is good.
type brokenDisk struct {
	*oldSink
	good, failed chan struct{}
	second       atomic.Bool // the source is read a second time
}

func (s *brokenDisk) Same(v1.Descriptor) bool { return false }
func (s *brokenDisk) Target(context.Context) (json.RawMessage, error) {
	return json.RawMessage(`{"disk":"a"}`), nil
}

func (s *brokenDisk) TargetState() TargetState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrote > 0 {
		return TargetOverwritten
	}
	return TargetUntouched
}

func (s *brokenDisk) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	s.second.Store(true)
	_, err := s.oldSink.Begin(ctx, d, off)
	return s, err
}

func (s *brokenDisk) Good(off int64) {
	if off == leaf.Size {
		close(s.good)
	}
}

func (s *brokenDisk) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if !s.begun || off != leaf.Size {
		return s.oldSink.Open(ctx, d, off)
	}
	<-s.good
	defer close(s.failed)
	return nil, syscall.EIO
}

// A node that fails by itself says whether it has overwritten anything, also where much of what it has is good.
func TestUpdateFailsUntouched(t *testing.T) {
	const size = 3 * leaf.Size
	src := newMemSource(false, random(1, size))
	src.descs[0].MediaType = leaf.MediaType
	s := &brokenDisk{oldSink: &oldSink{data: bytes.Clone(src.blobs[0])}, good: make(chan struct{}), failed: make(chan struct{})}
	s.data[size-1] ^= 1
	src.read = func(_ int, off int64) {
		if s.second.Load() && off >= size-leaf.Size {
			<-s.failed
		}
	}
	c := newCluster(t, 1, func(_ int, cfg *NodeConfig) {
		cfg.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
	})
	cfg := c.config(src)
	cfg.Update, cfg.Confirm = true, func(context.Context, []Row) error { return nil }
	r, _ := send(t, cfg)
	if row := r.Nodes[0]; row.State != Failed || row.Target != TargetUntouched || s.wrote > 0 {
		t.Errorf("%+v, wrote %d bytes", row, s.wrote)
	}
}

// quietDisk is a disk that is updated, and of which the last leaf differs.
type quietDisk struct{ *brokenDisk }

func (quietDisk) Good(int64) {}

func (s quietDisk) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return s.oldSink.Open(ctx, d, off)
}

// Begin does not keep quietDisk from being the Writer.
func (s quietDisk) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	_, err := s.brokenDisk.Begin(ctx, d, off)
	return s, err
}

// Whoever ends an update in which nothing has been written yet reads that the disk is untouched.
func TestUpdateInterruptedUntouched(t *testing.T) {
	const size = 3 * leaf.Size
	src := newMemSource(false, random(1, size))
	src.descs[0].MediaType = leaf.MediaType
	s := quietDisk{&brokenDisk{oldSink: &oldSink{data: bytes.Clone(src.blobs[0])}}}
	s.data[size-1] ^= 1
	c := newCluster(t, 1, func(_ int, cfg *NodeConfig) {
		cfg.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
	})
	ended := sync.OnceFunc(func() { <-c.nodes[0].outcomes })
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	src.read = func(_ int, off int64) {
		if s.second.Load() && off >= size-leaf.Size {
			interrupt()
			ended() // so that not a byte of the leaf comes
		}
	}
	cfg := c.config(src)
	cfg.Update, cfg.Confirm = true, func(context.Context, []Row) error { return nil }
	r, err := sendUntil(t, ctx, cfg)
	if row := r.Nodes[0]; !isInterrupted(err) || row.State != Failed || row.Target != TargetUntouched || s.wrote > 0 {
		t.Errorf("%+v, %v, wrote %d bytes", row, err, s.wrote)
	}
}
