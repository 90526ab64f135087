package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// simBlob is a blob of a simulated source. Its descriptor carries its number, so
// that sinks need not guess which one is meant.
type simBlob struct {
	data []byte
	sum  digest.Digest
	desc v1.Descriptor
}

const blobKey = "blob"

func blobOf(d v1.Descriptor) int {
	i, _ := strconv.Atoi(d.Annotations[blobKey])
	return i
}

func shaOf(b []byte) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, func() []byte { s := sha256.Sum256(b); return s[:] }())
}

// leavesOf is the digest of a blob in leaves.
func leavesOf(b []byte) digest.Digest {
	var sums []byte
	for l := range slices.Chunk(b, simMark) {
		sum := sha256.Sum256(l)
		sums = append(sums, sum[:]...)
	}
	root := sha256.Sum256(sums)
	return leaf.Digest(root[:])
}

// digest is what the ring says of bytes of the blob.
func (b *simBlob) digest(data []byte) digest.Digest {
	if leaf.In(b.desc) {
		return leavesOf(data)
	}
	return shaOf(data)
}

// simSource is paced, so that a transfer takes some of the fake time.
type simSource struct {
	sim  *sim
	fail string // "", error, shrink, grow, changed
	at   int64  // in the last blob
}

func (s *simSource) Blobs(context.Context) ([]v1.Descriptor, error) {
	var all []v1.Descriptor
	for _, b := range s.sim.blobs {
		all = append(all, b.desc)
	}
	return all, nil
}

func (s *simSource) Open(_ context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	i := blobOf(d)
	data, bad := s.sim.blobs[i].data, error(nil)
	if s.fail != "" && i == len(s.sim.blobs)-1 {
		at := min(s.at, int64(len(data)))
		switch s.fail {
		case "error":
			data, bad = data[:at], syscall.EIO
		case "shrink":
			data = data[:at]
		case "grow":
			if d.Size >= 0 { // a stream has no size that it could outgrow
				data = append(bytes.Clone(data), 'x')
			}
		}
	}
	r := bytes.NewReader(data[min(off, int64(len(data))):])
	return io.NopCloser(readFunc(func(p []byte) (int, error) {
		s.sim.happens("", "read", i, off)
		time.Sleep(time.Duration(s.sim.sc.Pace) * time.Microsecond)
		n, err := r.Read(p[:min(len(p), simFrame)])
		off += int64(n)
		if err == io.EOF && bad != nil {
			err = bad
		}
		return n, err
	})), nil
}

func (s *simSource) Unchanged(context.Context) error {
	if s.fail != "" {
		return errors.New("changed while it was read")
	}
	s.sim.log(simcheck.Event{Kind: simcheck.SourceDone})
	s.sim.happens("", "done", 0, 0)
	return nil
}

// simSink is the storage of one process of a node. It compares what is written
// with the source and keeps bytes only where they differ.
type simSink struct {
	sim  *sim
	node *simNode
	proc int
	slow time.Duration // per write
	hung time.Time     // no write returns before
	full int64         // the disk is full after so many bytes; -1: never
	what string        // which call fails instead: commit, prepare, publish

	mu      sync.Mutex
	dead    bool
	closed  bool
	parts   []simPart
	written int64
}

type simPart struct {
	n       int64
	own     []byte // nil while it is the source's
	durable bool
	ahead   map[int64]bool // the leaves that it holds in advance; true: others than the source's
}

// cut keeps so many leading bytes.
func (p *simPart) cut(keep int64, src []byte) {
	p.n = keep
	if p.own = p.own[:min(int64(len(p.own)), keep)]; bytes.Equal(p.own, src[:min(int64(len(src)), keep)]) {
		p.own = nil
	}
}

// say writes history, unless the process is dead.
func (s *simSink) say(ev simcheck.Event) error {
	if s.dead {
		return errors.New("the process is dead")
	}
	ev.Node, ev.Proc = s.node.name, s.proc
	s.sim.log(ev)
	return nil
}

func (s *simSink) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	s.sim.happens(s.node.name, "offer", 0, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	ev := simcheck.Event{Kind: simcheck.Offer, Held: make([]bool, len(blobs))}
	held := make([]int64, len(blobs))
	for i := range blobs {
		if b := s.sim.blobs[i]; s.parts[i].durable && b.desc.Size > 0 && b.desc.Digest != "" {
			ev.Held[i], held[i] = true, b.desc.Size
		} else {
			s.parts[i].durable = false
			held[i] = s.parts[i].n // a claim, not a word for the whole
			if b.desc.Digest != "" {
				held[i] = min(held[i], max(0, b.desc.Size-1))
			}
		}
	}
	return held, -1, s.say(ev)
}

func (s *simSink) Begin(_ context.Context, d v1.Descriptor, off int64) (Writer, error) {
	i := blobOf(d)
	s.sim.happens(s.node.name, "begin", i, 0)
	if err := s.fails("begin"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.parts[i]
	p.cut(min(off, p.n), s.sim.blobs[i].data)
	p.durable = false
	w := &simWriter{s, i}
	err := s.say(simcheck.Event{Kind: simcheck.Begin, Blob: i, Off: p.n})
	if err == nil {
		err = s.skip(i, off)
	}
	if leaf.In(d) {
		return &simPlacer{w}, err
	}
	return w, err
}

func (s *simSink) Prepare(context.Context, []v1.Descriptor) (bool, error) {
	s.sim.happens(s.node.name, "prepare", 0, 0)
	time.Sleep(s.sim.fsync())
	return s.sim.allHeld(s.node.index), s.fails("prepare")
}

// fails is the error of a full disk when this is where it shows.
func (s *simSink) fails(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errors.New("the process is dead")
	}
	if s.what == call {
		return fmt.Errorf("%s: %w", call, syscall.ENOSPC)
	}
	return nil
}

func (s *simSink) Publish(context.Context) error {
	s.sim.happens(s.node.name, "publish", 0, 0)
	time.Sleep(s.sim.fsync())
	if err := s.fails("publish"); err != nil {
		return err
	}
	s.mu.Lock()
	ev := simcheck.Event{Kind: simcheck.Publish}
	for i := range s.parts {
		ev.Sums = append(ev.Sums, s.sum(i).String())
	}
	err := s.say(ev)
	s.mu.Unlock()
	s.sim.happens(s.node.name, "published", 0, 0)
	time.Sleep(s.sim.fsync())
	return err
}

func (s *simSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.say(simcheck.Event{Kind: simcheck.Close})
}

// ReadsBack: in some simulations storage is read back. Where a byte is read wrong, that is found, which other checks do not expect.
func (s *simSink) ReadsBack() bool { return s.sim.sc.Seed%7 < 2 && s.node.rot < 0 }

// sum is the digest of what part i is now.
func (s *simSink) sum(i int) digest.Digest {
	p, b := &s.parts[i], &s.sim.blobs[i]
	switch {
	case p.own != nil:
		return b.digest(p.own)
	case p.n == int64(len(b.data)):
		return b.sum
	}
	return b.digest(b.data[:p.n])
}

func (s *simSink) Open(_ context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	i := blobOf(d)
	return io.NopCloser(readFunc(func(b []byte) (int, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := &s.parts[i]
		data := p.own
		if data == nil {
			data = s.sim.blobs[i].data[:p.n]
		}
		if off < int64(len(data)) {
			data = data[off:]
		} else if data = s.aheadAt(i, off); data == nil {
			return 0, io.EOF
		}
		n := copy(b, data)
		if rot := s.node.rot % int64(len(s.sim.blobs[i].data)); s.node.rot >= 0 && rot >= off && rot < off+int64(n) {
			b[rot-off] ^= 1
		}
		off += int64(n)
		return n, nil
	})), nil
}

// makeSparse makes most of b zeros, in runs that begin and end anywhere.
func makeSparse(b []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for len(b) > 0 {
		n := min(1+r.IntN(3*simMark), len(b))
		clear(b[:n])
		b = b[n:]
		b = b[min(1+r.IntN(simMark), len(b)):]
	}
}

// simPlacer writes one blob in leaves.
type simPlacer struct{ *simWriter }

func (w *simPlacer) WriteAt(b []byte, off int64) (int, error) {
	w.s.mu.Lock()
	err := w.s.skip(w.i, off)
	at := w.s.parts[w.i].n
	delete(w.s.parts[w.i].ahead, off-off%simMark)
	w.s.mu.Unlock()
	if err == nil && off != at {
		err = fmt.Errorf("write at %d behind %d bytes", off, at)
	}
	if err != nil {
		return 0, err
	}
	return w.simWriter.Write(b)
}

func (w *simPlacer) Zero(off, n int64) error {
	_, err := w.WriteAt(make([]byte, n), off)
	return err
}

// Write is not what the ring may call here.
func (w *simPlacer) Write([]byte) (int, error) { return 0, errors.New("Write of a placer") }

// simWriter writes one blob.
type simWriter struct {
	s *simSink
	i int
}

func (w *simWriter) Write(b []byte) (int, error) {
	s := w.s
	s.mu.Lock()
	slow := max(s.slow, time.Until(s.hung))
	p := &s.parts[w.i]
	at := p.n
	s.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow)
	}
	s.sim.happens(s.node.name, "write", w.i, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full >= 0 && s.written+int64(len(b)) > s.full && !s.dead {
		return 0, syscall.ENOSPC
	}
	src := s.sim.blobs[w.i].data
	same := at+int64(len(b)) <= int64(len(src)) && bytes.Equal(src[at:at+int64(len(b))], b)
	if !same && p.own == nil {
		p.own = append(make([]byte, 0, len(src)), src[:at]...)
	}
	if p.own != nil {
		p.own = append(p.own, b...)
	}
	p.n += int64(len(b))
	s.written += int64(len(b))
	return len(b), s.say(simcheck.Event{Kind: simcheck.Write, Blob: w.i, Off: at, N: int64(len(b)), Bad: !same})
}

func (w *simWriter) Commit(_ context.Context, final v1.Descriptor) error {
	s := w.s
	s.sim.happens(s.node.name, "commit", w.i, 0)
	time.Sleep(s.sim.fsync())
	if err := s.fails("commit"); err != nil {
		// The writer has ended; nothing is kept.
		s.mu.Lock()
		defer s.mu.Unlock()
		s.say(simcheck.Event{Kind: simcheck.Abort, Blob: w.i})
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.parts[w.i]
	if err := s.skip(w.i, final.Size); err != nil {
		return err
	}
	sum := s.sum(w.i)
	if err := s.say(simcheck.Event{Kind: simcheck.Commit, Blob: w.i, N: p.n, Sum: sum.String()}); err != nil {
		return err
	}
	if sum != final.Digest || p.n != final.Size {
		return fmt.Errorf("told to commit %v of %d bytes", final.Digest, final.Size)
	}
	p.durable = true
	return nil
}

func (w *simWriter) Abort(keep int64) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.parts[w.i]
	keep = min(keep, p.n) // what is behind it is held in advance
	p.cut(keep, s.sim.blobs[w.i].data)
	return s.say(simcheck.Event{Kind: simcheck.Abort, Blob: w.i, N: keep})
}

// blindSink hides that a sink can replay.
type blindSink struct {
	Sink
	Preparer
	io.Closer
}
