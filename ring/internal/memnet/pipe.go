package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one direction of a connection: a bounded buffer whose bytes become
// readable when they have travelled.
type pipe struct {
	mu   sync.Mutex
	size int
	// buf[at:] is unread. visible is how many of these bytes have arrived.
	buf     []byte
	at      int
	visible int
	// unacked bytes were read, but no acknowledgement comes back, so that they still fill the buffer.
	unacked int
	flying  []flight
	// busy is until when the line is busy.
	busy   time.Time
	arrive *time.Timer
	// stalled says that nothing travels, deaf that nothing travels the other way: no acknowledgements.
	stalled bool
	deaf    bool
	way     Way
	// finished says that the writer has closed, left that the reader has.
	finished bool
	left     bool
	// broken says that the writer closed with a reset, so that what has not arrived is lost.
	broken bool
	// lost says that the connection broke below both ends.
	lost bool
	// taken is how many bytes were written, first the first of them.
	taken int64
	first byte

	readable, writable waiter
}

// flight is how many bytes are under way together, and when they arrive.
type flight struct {
	n  int
	at time.Time
}

// waiter is where one side of a pipe waits, with its deadline.
type waiter struct {
	sync.Cond
	until   time.Time
	timer   *time.Timer
	waiting bool
}

func newPipe(size int) *pipe {
	p := &pipe{size: size}
	p.readable.L, p.writable.L = &p.mu, &p.mu
	return p
}

func (w *waiter) expired() bool { return !w.until.IsZero() && !time.Now().Before(w.until) }

// wait waits for a change or the deadline. Only wait sets the timer, because most deadlines are
// replaced before they matter.
func (w *waiter) wait() {
	if !w.until.IsZero() {
		if w.timer == nil {
			w.timer = time.AfterFunc(time.Until(w.until), func() {
				w.L.Lock()
				defer w.L.Unlock()
				w.Broadcast()
			})
		} else {
			w.timer.Reset(time.Until(w.until))
		}
	}
	w.waiting = true
	w.Wait()
	w.waiting = false
}

func (p *pipe) deadline(w *waiter, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.until = t
	if w.waiting {
		w.Broadcast()
	}
	if t.IsZero() && w.timer != nil {
		w.timer.Stop()
	}
}

// path takes what the net does to this direction from now on.
func (p *pipe) path(stalled, deaf bool, w Way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled, p.deaf, p.way = stalled, deaf, w
	if !deaf {
		p.unacked = 0
	}
	p.promote()
	p.readable.Broadcast()
	p.writable.Broadcast()
}

// promote makes the bytes readable that have arrived. mu is held.
func (p *pipe) promote() {
	if p.stalled {
		return
	}
	if p.broken {
		p.drop()
	}
	if len(p.flying) == 0 {
		return
	}
	now := time.Now()
	i := 0
	for i < len(p.flying) && !p.flying[i].at.After(now) {
		p.visible += p.flying[i].n
		i++
	}
	if p.flying = p.flying[:copy(p.flying, p.flying[i:])]; len(p.flying) > 0 {
		p.timed(p.flying[0].at)
	}
	if i > 0 {
		p.readable.Broadcast()
	}
}

func (p *pipe) timed(at time.Time) {
	if p.arrive == nil {
		p.arrive = time.AfterFunc(time.Until(at), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.promote()
		})
		return
	}
	p.arrive.Reset(time.Until(at))
}

// drop loses the bytes that are under way.
func (p *pipe) drop() {
	p.buf, p.flying = p.buf[:p.at+p.visible], nil
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.left:
			return 0, errno{net.ErrClosed}
		case p.readable.expired():
			return 0, errno{os.ErrDeadlineExceeded}
		case p.visible > 0:
			n := copy(b, p.buf[p.at:p.at+p.visible])
			p.at += n
			p.visible -= n
			if p.at == len(p.buf) {
				p.buf, p.at = p.buf[:0], 0
			}
			if p.deaf {
				p.unacked += n
			} else {
				p.writable.Broadcast()
			}
			return n, nil
		case len(b) == 0:
			return 0, nil
		case !p.stalled && p.broken:
			return 0, errno{syscall.ECONNRESET}
		case !p.stalled && p.finished && len(p.flying) == 0:
			return 0, io.EOF
		}
		p.readable.wait()
	}
}

// piece is how much travels at once where a rate or latency is set.
const piece = 16 << 10

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.finished:
			return n, errno{net.ErrClosed}
		case p.writable.expired():
			return n, errno{os.ErrDeadlineExceeded}
		case p.lost, p.left && !p.stalled && !p.deaf:
			return n, errno{syscall.ECONNRESET}
		case n == len(b):
			return n, nil
		}
		if space := p.size - (len(p.buf) - p.at) - p.unacked; space > 0 {
			k := min(len(b)-n, space)
			if p.way.timed() {
				k = min(k, piece)
			}
			p.put(b[n : n+k])
			n += k
			continue
		}
		p.writable.wait()
	}
}

// put sends bytes on their way. mu is held.
func (p *pipe) put(b []byte) {
	if p.taken == 0 {
		p.first = b[0]
	}
	b = p.way.damage(p.first, p.taken, b)
	p.taken += int64(len(b))
	if len(b) == 0 {
		return
	}
	if p.at > 0 && len(p.buf)+len(b) > cap(p.buf) {
		p.buf, p.at = p.buf[:copy(p.buf, p.buf[p.at:])], 0
	}
	p.buf = append(p.buf, b...)
	if !p.stalled && len(p.flying) == 0 && !p.way.timed() {
		p.visible += len(b)
		p.readable.Broadcast()
		return
	}
	now := time.Now()
	if p.busy.Before(now) {
		p.busy = now
	}
	if p.way.rate > 0 {
		p.busy = p.busy.Add(time.Duration(int64(len(b)) * int64(time.Second) / p.way.rate))
	}
	p.flying = append(p.flying, flight{len(b), p.busy.Add(p.way.latency)})
	if len(p.flying) == 1 && !p.stalled {
		p.timed(p.flying[0].at)
	}
}

// finish closes the writer's end, and reports whether it was open.
func (p *pipe) finish(reset bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return false
	}
	p.finished, p.broken = true, reset
	p.promote()
	p.readable.Broadcast()
	p.writable.Broadcast()
	return true
}

// abandon closes the reader's end.
func (p *pipe) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	p.readable.Broadcast()
	p.writable.Broadcast()
}

func (p *pipe) unread() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.visible > 0
}

func (p *pipe) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.finished
}
