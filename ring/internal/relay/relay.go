package relay

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Relay moves the frames of one transfer. Its producer is one goroutine, which reads the feed, or the
// source on the server. The producer puts each frame into the window and writes it to every live link.
// The store takes the frames from the window. A link that is not at the head catches up in a goroutine
// of its own (link_out.go).
type Relay struct {
	descs []v1.Descriptor
	// opener reads what was stored, or the source. With nil only the window replays. Arrive sets it.
	opener Opener

	mu sync.Mutex
	// space is where the producer waits for room in the window, and for somebody to stand in for a lost link.
	space sync.Cond
	win   window
	blobs []relayBlob
	// takers are those of the store's goroutines, each of which waits on a condition of its own. All blobs
	// before taken have their takers, or had them.
	takers []*taker
	taken  int
	links  []*outLink
	// gone are the links that ended since the last report.
	gone []wire.Sending
	// lost are the broken links for which no link stands in yet.
	lost   map[uint32]bool
	closed error

	unstored int // bytes that were put since the store was woken
	frame    int // payload of the last DATA frame that did not end its blob

	running sync.WaitGroup // the goroutines of links
	zeros   atomic.Bool    // there was a run of zeros
	sent    atomic.Int64   // payload bytes that were written to links

	// halted says that the process falls back: producer and store end.
	halted bool
	meter  meter
}

// relayBlob is where a blob stands. It is guarded by the relay's mutex.
type relayBlob struct {
	// size is -1 while it is not known.
	size int64
	// recv is where the next frame begins that the producer puts. The producer owns it. Arrive and FallBack set it
	// while there is no producer, to what the node's machine has accepted.
	recv int64
	// arriving says that the producer brings the blob. Otherwise it is read from storage.
	arriving bool
	// readable is how many leading bytes may be read back from storage.
	readable int64
	// held has the leaves that were there before: the producer leaves them out. It is nil where there are none, and never
	// changes.
	held *leaf.Set
}

// storeBatch is how many bytes come before the store is woken.
const storeBatch = 256 << 10

// These errors say why nothing goes on, for ever or for now.
var (
	ErrClosed = errors.New("transfer ended")
	ErrHalted = errors.New("falling back to the last good mark")
)

// Opener opens the bytes of d from off on. Closing the reader frees whatever it holds.
type Opener interface {
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}

// New makes a relay for blobs of which nothing arrives before Arrive is called.
func New(p *Pool, descs []v1.Descriptor) *Relay {
	r := &Relay{descs: descs, blobs: make([]relayBlob, len(descs)), lost: map[uint32]bool{}}
	r.space.L = &r.mu
	r.win.pool = p
	r.meter.relay.kind, r.meter.write.kind, r.meter.hash.all.kind = waitIn, waitIn, waitIn
	for i, d := range descs {
		r.blobs[i].size = d.Size
	}
	return r
}

// Arrive says which blobs the producer will bring, and from which byte on. All of the others may be
// read from storage. opener reads what is there already, and what SetReadable names later. It is nil where
// nothing can be read back.
func (r *Relay) Arrive(opener Opener, from func(blob int) (off int64, arrives bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opener = opener
	for i := range r.blobs {
		b := &r.blobs[i]
		if b.recv, b.arriving = from(i); !b.arriving {
			b.readable = b.size
		}
	}
}

// Hold says which leaves of each blob are there already, which the producer leaves out. nil is none. It is called while there
// is no producer.
func (r *Relay) Hold(held func(blob int) *leaf.Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.blobs {
		b := &r.blobs[i]
		b.held = held(i)
		b.recv = b.held.Next(b.recv)
	}
	r.wakeLinks()
}

// reserve returns n bytes of the window to receive a frame into. It waits while the store is behind, and
// while no link stands in for a lost one: that link needs what the window holds now.
func (r *Relay) reserve(n int) (b []byte, err error) {
	err = r.reserveBy(func() bool {
		b = r.win.alloc(n, r.kept)
		return b != nil
	})
	return b, err
}

// reserveZero is reserve for a run of zeros.
func (r *Relay) reserveZero() error {
	return r.reserveBy(func() bool { return r.win.zeroRoom(r.kept) })
}

// tryReserve is reserve that returns nil where it would wait.
func (r *Relay) tryReserve(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lost) > 0 || r.ended() != nil {
		return nil
	}
	return r.win.alloc(n, r.kept)
}

// reserveBy waits until there is room, which is what try returns.
func (r *Relay) reserveBy(try func() bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if err := r.ended(); err != nil {
			return err
		}
		if len(r.lost) > 0 {
			r.waitFor(&r.space, waitOut)
			continue
		}
		if try() {
			return nil
		}
		r.wakeTakers(-1)
		why := waitOut
		if len(r.win.frames) > 0 && r.untaken(r.win.frames[0]) {
			why = waitDisk
		}
		r.waitFor(&r.space, why)
	}
}

func (r *Relay) waitFor(c *sync.Cond, why waitKind) {
	was := r.meter.relay.is(why)
	c.Wait()
	r.meter.relay.is(was)
}

// Err says why nothing goes on: it returns ErrHalted during a fallback, what Close was given after that, and
// nil otherwise.
func (r *Relay) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended()
}

// ended does the same. mu is held.
func (r *Relay) ended() error {
	if r.closed == nil && r.halted {
		return ErrHalted
	}
	return r.closed
}

// kept reports whether the store or a link still needs f.
func (r *Relay) kept(f *frame) bool {
	return r.untaken(f) || r.needed(f)
}

// needed reports whether a link that is inside the window still needs f. A link behind the window
// does not count, because it reads from storage.
func (r *Relay) needed(f *frame) bool {
	first := r.win.frames[0]
	for _, l := range r.links {
		blob, pos, ok := l.cursor()
		if !ok || l.lag || !before(blob, pos, f.blob, f.end()) {
			continue
		}
		if r.opener != nil && before(blob, pos, first.blob, first.off) && r.storageServes(blob, pos) {
			continue
		}
		return true
	}
	return false
}

// storageServes reports whether a link at a position behind the window will get
// its bytes from storage, now or after the next mark.
func (r *Relay) storageServes(blob uint32, pos int64) bool {
	b := &r.blobs[blob]
	return !b.arriving || pos < b.recv
}

// put publishes the frame that was received into what reserve returned last, and writes it to
// every live link. Only the producer calls it.
func (r *Relay) put(hdr *[wire.HeaderSize]byte, data []byte, blob uint32, off int64) error {
	return r.publish(frame{hdr: *hdr, data: data, n: len(data), blob: blob, off: off})
}

// publish is put for any frame: one whose payload is claimed, or a run of zeros.
func (r *Relay) publish(add frame) error {
	r.mu.Lock()
	if err := r.ended(); err != nil {
		r.mu.Unlock()
		return err
	}
	r.meter.moved.Add(int64(len(add.data)))
	if add.data == nil {
		r.zeros.Store(true)
	}
	f := r.win.add(add)
	blob, off := f.blob, f.off
	b := &r.blobs[blob]
	if b.recv = b.held.Next(f.end()); b.recv != b.size && f.data != nil {
		r.frame = f.n
	}
	// The store is woken when a batch has come, because to wake it for a small frame costs more than to hash it.
	if r.unstored += f.n; r.unstored >= storeBatch || b.recv == b.size || r.atMark(b.recv) {
		r.unstored = 0
		r.wakeTakers(int(blob))
	}
	var buf [4]*outLink
	live := buf[:0]
	for _, l := range r.links {
		next, pos, ok := l.cursor()
		switch {
		case ok && l.lag:
			l.cond.Signal()
		case !ok || !l.live || next != blob || pos >= b.recv:
		case pos == off:
			l.busy, l.writing = true, true
			live = append(live, l)
		default: // its bytes begin inside this frame, or are of a leaf that is left out
			l.live = false
			l.cond.Signal()
		}
	}
	r.mu.Unlock()
	for _, l := range live {
		err := r.send(l, f, &r.meter.relay)
		r.mu.Lock()
		l.busy, l.writing = false, false
		if err != nil {
			r.failLocked(l, wire.CodeNetwork, err)
		} else {
			r.advance(l, f.n)
			l.live = l.live && r.plan(l).kind == planHead
		}
		if !l.live {
			l.cond.Signal()
		}
		r.mu.Unlock()
	}
	return nil
}

// SetSize makes the length of a stream known.
func (r *Relay) SetSize(blob int, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[blob].size = size
	r.wakeTakers(-1)
	r.wakeLinks()
}

// SetReadable says that bytes below off of blob may be read back from storage.
func (r *Relay) SetReadable(blob int, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[blob].readable = max(off, r.blobs[blob].readable)
	for _, l := range r.links {
		if !l.live {
			l.cond.Signal()
		}
	}
}

// wakeLinks has every link look again for what to do.
func (r *Relay) wakeLinks() {
	for _, l := range r.links {
		l.live = false
		l.cond.Signal()
	}
}

// Close ends everything that waits or writes, with err.
func (r *Relay) Close(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed != nil {
		return
	}
	r.closed = err
	for _, l := range r.links {
		l.stop()
	}
	r.space.Broadcast()
	r.wakeTakers(-1)
}

// Release waits for the link goroutines and gives the window's memory back. The
// producer and the store must have ended.
func (r *Relay) Release() {
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.win.release()
}

// openAt opens stored bytes of a blob for replay.
func (r *Relay) openAt(ctx context.Context, blob uint32, off int64) (*storedReader, error) {
	rc, err := r.opener.Open(ctx, r.descs[blob], off)
	if err != nil {
		return nil, err
	}
	return &storedReader{ReadCloser: rc, blob: blob, off: off}, nil
}

// Feeding is how many links this process feeds, or has broken links of that nobody stands in for, and how many needs all links count as
// together. A link counts until its goroutine has ended.
func (r *Relay) Feeding() (links, needs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if needs += l.weight; !r.lost[l.id] {
			links++
		}
	}
	return links + len(r.lost), needs
}

// Zeros reports whether runs of zeros were among the frames, which take no time on a link.
func (r *Relay) Zeros() bool { return r.zeros.Load() }

// Sent returns how many payload bytes were written to links.
func (r *Relay) Sent() int64 { return r.sent.Load() }

// Streamed returns how many bytes of a blob whose size is not told the producer has brought; 0 where there is none.
func (r *Relay) Streamed() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.descs) - 1; last >= 0 && r.descs[last].Size < 0 {
		return r.blobs[last].recv
	}
	return 0
}

// Total returns the number of bytes of all blobs, or -1 while the end of a stream is unknown.
func (r *Relay) Total() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.blobs {
		if r.blobs[i].size < 0 {
			return -1
		}
		n += r.blobs[i].size
	}
	return n
}

func (r *Relay) sizes() Sizes { return r.win.pool.sizes }

// atMark reports whether there is a mark at off. toMark returns how many bytes behind off the next one is.
func (r *Relay) atMark(off int64) bool  { return off%r.sizes().Mark == 0 }
func (r *Relay) toMark(off int64) int64 { return r.sizes().Mark - off%r.sizes().Mark }
