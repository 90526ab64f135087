package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// outLink is a link this process feeds. Its cursor walks the receiver's needs in
// travelling order. While it is live, the relay's producer writes each frame as
// it comes; else its own goroutine (run) brings it up from window or storage.
type outLink struct {
	id, gen uint32
	padded  bool
	zeros   bool // ZERO frames and flags may be sent
	needs   [][2]int64
	weight  int
	sets    []*leaf.Set // of each need: the leaves that the receiver holds, or nil; empty where it holds none
	idx     int
	pos     int64 // in needs[idx]; never at the front of a leaf that the receiver holds

	conn    LinkWriter // nil until dialled
	lag     bool       // it may fall behind the window: it never is live
	live    bool       // the producer writes
	busy    bool       // the producer is writing now
	writing bool       // somebody is
	dead    bool       // stopped: nobody reports about it any more
	info    linkInfo   // of the last report
	sent    int64      // bytes of blobs
	owed    int        // bytes of DATA that the receiver may wait for
	acks    zeroAcks   // what it has acknowledged of zeros
	acked   int64      // what the receiver has acknowledged in the end

	cond  sync.Cond
	reads *storedReader
	buf   []byte             // of the replay
	abort context.CancelFunc // of the dial

	failure *wire.Error // why it broke
}

// LinkWriter is the sending side of a data connection. One goroutine writes at a
// time, and its meter, if it has one, is told when it waits; Close from another ends a write that blocks.
type LinkWriter interface {
	writeFrame(hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error
	netConn() net.Conn
	io.Closer
}

type storedReader struct {
	io.ReadCloser
	blob uint32
	off  int64
}

// cursor is the next byte the link needs; ok is false when it needs none.
func (l *outLink) cursor() (blob uint32, pos int64, ok bool) {
	if l.dead || l.idx >= len(l.needs) {
		return 0, 0, false
	}
	return uint32(l.needs[l.idx][0]), l.pos, true
}

// seek goes to a position in a need, or to the next one that the receiver lacks.
func (l *outLink) seek(idx int, pos int64) {
	if l.idx, l.pos = idx, pos; len(l.sets) > 0 {
		l.pos = l.sets[idx].Next(pos)
	}
}

// stop ends the link without a report. The relay's mutex is held.
func (l *outLink) stop() {
	l.dead, l.live = true, false
	l.abort()
	if l.conn != nil {
		l.acked = l.ackedNow()
		l.conn.Close()
	}
	l.cond.Signal()
}

// ackedNow is how many bytes the receiver has acknowledged, or, where the transport does not know, how many it was sent.
func (l *outLink) ackedNow() int64 {
	if info, ok := infoOf(l.conn.netConn()); ok {
		return l.acks.with(int64(info.acked))
	}
	return l.sent
}

type planKind int

const (
	planFrame   planKind = iota // write what.frame
	planStorage                 // read what.n bytes from storage
	planHead                    // the frame has not come yet: go live
	planWait                    // stored, but below no good mark yet
	planFin                     // everything was sent
	planGone                    // neither in memory nor in storage
)

type linkPlan struct {
	kind  planKind
	frame *frame
	n     int
}

// plan decides what a link does next; the relay's mutex is held.
func (r *Relay) plan(l *outLink) linkPlan {
	if r.halted {
		return linkPlan{kind: planWait} // for what it will have when it went back
	}
	for l.idx < len(l.needs) {
		if b := &r.blobs[l.needs[l.idx][0]]; b.size < 0 || l.pos < b.size {
			break
		}
		if l.idx+1 == len(l.needs) {
			l.idx++
			break
		}
		l.seek(l.idx+1, l.needs[l.idx+1][1])
	}
	blob, pos, ok := l.cursor()
	if !ok {
		return linkPlan{kind: planFin}
	}
	if f := r.win.find(blob, pos); f != nil {
		return linkPlan{kind: planFrame, frame: f}
	}
	b := &r.blobs[blob]
	if b.arriving && pos >= b.recv {
		return linkPlan{kind: planHead}
	}
	if r.opener == nil {
		return linkPlan{kind: planGone}
	}
	if pos >= b.readable {
		return linkPlan{kind: planWait}
	}
	end := min(b.readable, pos+r.replayFrame(), pos+r.toMark(pos))
	if first := r.win.first(blob, pos); first > 0 {
		end = min(end, first)
	}
	return linkPlan{kind: planStorage, n: int(end - pos)}
}

func (r *Relay) advance(l *outLink, n int) {
	l.seek(l.idx, l.pos+int64(n))
	l.sent += int64(n)
	r.space.Signal()
}

// replayFrame is how much of what is stored goes into one frame: as much as the frames
// that come, which suit the links, but not as little as small blobs make them, and no more than maxReplay.
func (r *Relay) replayFrame() int64 {
	if r.frame == 0 {
		return int64(r.maxReplay())
	}
	return int64(min(r.maxReplay(), max(r.frame, r.sizes().Frame)))
}

// DialFunc opens the connection of a link and proves it.
type DialFunc func(ctx context.Context, first wire.LinkHello) (LinkWriter, error)

// ReportFunc tells what became of a link this process feeds.
type ReportFunc func(link, gen uint32, state string, code wire.Code, reason string)

// Feed adds a link and feeds it until its needs are met, it fails or it is
// stopped. It holds its place in the window from now on, before it is dialled.
func (r *Relay) Feed(ctx context.Context, d *wire.Dial, dial DialFunc, report ReportFunc) error {
	link, needs := d.Link, d.Needs
	for i, n := range needs {
		if n[0] < 0 || n[0] >= int64(len(r.blobs)) || n[1] < 0 || i > 0 && n[0] <= needs[i-1][0] {
			return fmt.Errorf("link %d: malformed needs", link)
		}
	}
	if len(needs) == 0 {
		return fmt.Errorf("link %d: nothing is needed", link)
	}
	sets, err := r.setsOf(d)
	if err != nil {
		return fmt.Errorf("link %d: %w", link, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &outLink{id: link, gen: d.Generation, padded: d.Padded, zeros: d.Zeros, lag: d.Lag, needs: needs, sets: sets, weight: Weight(d), abort: cancel}
	l.cond.L = &r.mu
	l.seek(0, needs[0][1])
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed != nil {
		cancel()
		return r.closed
	}
	r.links = append(r.links, l)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		defer cancel()
		r.run(ctx, l, dial, report)
	}()
	return nil
}

// Unfeed stops a link, or forgets one that was lost: nobody stands in for it.
func (r *Relay) Unfeed(link uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lost, link)
	for _, l := range r.links {
		if l.id == link {
			l.stop()
		}
	}
	r.space.Broadcast()
}

// FallBack drops the whole window, which may hold wrong bytes, and goes back to
// what at says of each blob. The producer, the store and the links that halt found have
// ended; those that were ordered since begin to send now.
func (r *Relay) FallBack(at func(blob int) int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.win.pinned() { // their connections are closed: it does not take long
		r.space.Wait()
	}
	r.win.release()
	r.unstored, r.taken = 0, 0
	for i := range r.blobs {
		if b := &r.blobs[i]; b.arriving {
			b.recv = at(i)
		}
	}
	r.halted = false
	r.wakeLinks()
}

// Halt ends the producer, the store and every link, whose receiver says anew what it
// needs. Until fallBack nothing is sent, to nobody: what is there may be wrong.
func (r *Relay) Halt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halted = true
	for _, l := range r.links {
		if !l.dead { // also a write must not hold the producer
			l.stop()
			l.failure = wire.Errorf(wire.CodeMismatch, "the feeder went back to its last good mark")
		}
	}
	r.space.Broadcast()
	r.wakeTakers(-1)
}

// failLocked takes a broken link out and remembers that somebody must stand in
// for it. Its goroutine reports.
func (r *Relay) failLocked(l *outLink, code wire.Code, err error) {
	if l.dead {
		return
	}
	l.stop()
	r.lost[l.id] = true
	l.failure = &wire.Error{Code: code, Err: Bare(err)}
}

func (r *Relay) run(ctx context.Context, l *outLink, dial DialFunc, report ReportFunc) {
	conn, err := dial(ctx, wire.LinkHello{Padded: l.padded, Zeros: l.zeros, Link: l.id, Generation: l.gen, Blob: uint32(l.needs[0][0]), Offset: l.needs[0][1]})
	r.mu.Lock()
	switch {
	case err != nil:
		r.failLocked(l, wire.CodeNetwork, err)
	case l.dead:
		conn.Close()
	default:
		l.conn = conn
		r.mu.Unlock()
		report(l.id, l.gen, wire.LinkUp, wire.CodeNone, "")
		r.mu.Lock()
		r.catchUp(ctx, l)
	}
	if l.reads != nil {
		l.reads.Close()
	}
	for i := range r.links {
		if r.links[i] == l {
			r.links = append(r.links[:i], r.links[i+1:]...)
			r.noteEnd(l)
			break
		}
	}
	r.space.Broadcast()
	failure := l.failure
	r.mu.Unlock()
	if failure != nil {
		report(l.id, l.gen, wire.LinkDown, failure.Code, failure.Error())
	}
}

// catchUp runs a dialled link to its end. The relay's mutex is held on entry and
// on return, and not while it reads or writes.
func (r *Relay) catchUp(ctx context.Context, l *outLink) {
	for !l.dead {
		what := r.plan(l)
		switch what.kind {
		case planHead:
			if l.lag {
				l.cond.Wait()
				continue
			}
			l.live = true
			for l.live || l.busy {
				l.cond.Wait()
			}
		case planWait:
			l.cond.Wait()
		case planGone:
			r.failLocked(l, wire.CodeGone, fmt.Errorf("%s from byte %d can no longer be replayed", wire.Called(r.descs, int(l.needs[l.idx][0])), l.pos))
		case planFin:
			r.mu.Unlock()
			var fin [wire.HeaderSize]byte
			wire.PutFin(&fin)
			err := l.conn.writeFrame(&fin, nil, nil)
			l.conn.Close()
			r.mu.Lock()
			if err != nil {
				r.failLocked(l, wire.CodeNetwork, err)
			}
			l.acked = max(l.acked, l.sent) // the kernel goes on to send what it has
			return
		case planFrame:
			f, part := what.frame, what.frame.from(l.pos)
			if l.lag { // a pin would hold the window, and all of the chain, as long as the write
				part.shorten(r.copied(l, part.data))
			} else {
				f.pins++
			}
			l.writing = true
			r.mu.Unlock()
			err := r.send(l, &part, nil)
			r.mu.Lock()
			l.writing = false
			if !l.lag {
				if f.pins--; f.pins == 0 {
					r.space.Broadcast()
				}
			}
			if err != nil {
				r.failLocked(l, wire.CodeNetwork, err)
				return
			}
			r.advance(l, part.n)
		case planStorage:
			if !r.sendStored(ctx, l, what.n) {
				return
			}
		}
	}
}
