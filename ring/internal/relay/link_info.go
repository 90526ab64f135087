package relay

import (
	"net"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"golang.org/x/sys/unix"
)

// linkInfo is what the transport knows of a link's progress.
type linkInfo struct {
	at       time.Time
	acked    uint64        // bytes the receiver's kernel has acknowledged
	pending  bool          // some were sent, or wait to be, that it has not
	busy     time.Duration // there was something to send
	limited  time.Duration // of it: the receiver's window was shut
	delivery int64         // bytes per second, as the kernel has estimated
	kernel   bool          // knows the last three
}

// informer is a connection that knows its linkInfo without a kernel (memnet).
type informer interface {
	LinkInfo() (acked uint64, pending bool)
}

// infoOf asks the kernel about a connection (TCP_INFO, tcp(7) and linux/tcp.h).
func infoOf(conn net.Conn) (info linkInfo, ok bool) {
	info.at = time.Now()
	if m, is := conn.(informer); is {
		info.acked, info.pending = m.LinkInfo()
		return info, true
	}
	s, is := conn.(syscall.Conn)
	if !is {
		return info, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return info, false
	}
	raw.Control(func(fd uintptr) {
		t, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		ok = true
		info.kernel = true
		info.acked, info.pending = t.Bytes_acked, t.Unacked > 0 || t.Notsent_bytes > 0
		info.busy = time.Duration(t.Busy_time) * time.Microsecond
		info.limited = time.Duration(t.Rwnd_limited) * time.Microsecond
		info.delivery = int64(t.Delivery_rate)
	})
	return info, ok
}

// rateSince is what the link carried while it had something to send and its receiver did not
// hold it up, in bytes per second. If it often had nothing to send it is the burst that is
// known, the kernel's estimate of what passes in a moment. 0 is unknown; held is the receiver,
// for as good as all the time.
func (i linkInfo) rateSince(old linkInfo) (rate, burst int64, held bool) {
	dt, busy, limited := i.at.Sub(old.at), i.busy-old.busy, i.limited-old.limited
	switch {
	case old.at.IsZero() || dt <= 0 || busy <= 0:
		return 0, 0, false
	case busy < dt*4/5:
		return 0, i.delivery, false
	case busy-limited < dt/10:
		return 0, 0, true
	}
	return wire.PerSecond(int64(i.acked-old.acked), busy-limited), 0, false
}

// idleSince says whether the link has nothing to send now, or had nothing most of the time:
// a writer that gets no processor may be in the middle of it now.
func (i linkInfo) idleSince(old linkInfo, writing bool) bool {
	mostly := i.kernel && !old.at.IsZero() && i.busy-old.busy < i.at.Sub(old.at)/2
	return mostly || !i.pending && !writing
}

// Report completes a report with what was measured since the last one, and with the links that this
// process feeds. ended says that everything was received.
func (r *Relay) Report(rep *wire.Report, ended bool) {
	r.meter.fill(rep, ended, r.win.pool.RunDelay)
	rep.Links = r.sendings()
}

// maxEnded bounds how many links that have ended the next report tells of.
const maxEnded = 64

// noteEnd has the next report tell what the receiver of a link that ended has acknowledged. mu is held.
func (r *Relay) noteEnd(l *outLink) {
	if l.acked > 0 && len(r.gone) < maxEnded {
		r.gone = append(r.gone, wire.Sending{Link: l.id, Idle: true, Acked: l.acked, Ended: true})
	}
}

// sendings describes the links this process feeds, and those that ended since the last report, for a report.
func (r *Relay) sendings() []wire.Sending {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []wire.Sending{}
	for _, l := range r.links {
		if l.dead {
			continue
		}
		s := wire.Sending{Link: l.id}
		if l.conn != nil {
			if info, ok := infoOf(l.conn.netConn()); ok {
				s.Idle = info.idleSince(l.info, l.writing)
				s.Rate, s.Burst, s.Held = info.rateSince(l.info)
				s.Acked, l.info = l.acks.with(int64(info.acked)), info
			} else {
				s.Idle, s.Acked = !l.writing, l.sent
			}
		}
		out = append(out, s)
	}
	out = append(out, r.gone...)
	r.gone = nil
	return out
}

// acked is how many bytes the receiver of the first link has acknowledged.
func (r *Relay) acked() (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if l.conn != nil && !l.dead {
			info, ok := infoOf(l.conn.netConn())
			return info.acked, ok
		}
	}
	return 0, false
}
