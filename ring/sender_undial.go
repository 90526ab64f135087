package ring

import (
	"sync"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// readProof finds out which UNDIALs a node has surely read, on one control connection. A node reads in order, and answers each
// PING with PONG. So it has read all that was sent before a PING which it has answered.
//
// A node says PONG unasked until it answers the offer. So only what comes behind a REPORT counts, which it says later. The PONGs
// before that are missing in the count, so that something is taken for read too late, and nothing too early.
type readProof struct {
	// pinged counts the PINGs, each before it is sent.
	pinged atomic.Int64

	mu       sync.Mutex
	reported bool
	ponged   int64
	undials  []sentUndial
}

// sentUndial is an UNDIAL that is read once the node has answered more PINGs than were sent before it.
type sentUndial struct {
	link   uint32
	behind int64
}

// undial sends UNDIAL.
func (c *control) undial(link uint32) {
	c.send(&wire.Undial{Link: link})
	p := &c.proof
	p.mu.Lock()
	defer p.mu.Unlock()
	p.undials = append(p.undials, sentUndial{link, p.pinged.Load()})
}

// report notes that the node has said REPORT.
func (p *readProof) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reported = true
}

// pong notes that the node has said PONG, and returns the links of the UNDIALs that it has read by now, each once.
func (p *readProof) pong() (links []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reported {
		return nil
	}
	p.ponged++
	for len(p.undials) > 0 && p.ponged > p.undials[0].behind {
		links = append(links, p.undials[0].link)
		p.undials = p.undials[1:]
	}
	return links
}
