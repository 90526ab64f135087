package member

import (
	"bytes"
	"fmt"
	"math"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Machine decides for one node in one transfer. It does no I/O and knows no time. Its driver calls Step for one event
// after the other, and does what a call returns before it makes the next one.
type Machine struct {
	phase Phase
	blobs []blob

	// feedLink is the link that may feed the node, and feedGen its generation. The node refuses links of older
	// generations.
	feedLink, feedGen uint32
	// feedOpen says that this link was accepted and has not ended.
	feedOpen bool
	// feedFin says that the link ended with the final record.
	feedFin bool
	// asked says that FEED came and NEED has not been said yet.
	asked bool
	// next is the first blob that is not known to be complete. Frames come in the order of the blobs.
	next int
	// resetting says that ActReset was returned and EvReset has not come yet. Meanwhile the node takes
	// no frame and does not say NEED.
	resetting bool
	// markEvery is the distance of marks, in bytes.
	markEvery int64
	// probes counts the ActReach for which no EvReached came yet.
	probes int
	// marks counts the marks of all blobs that wait for the node's own sums, and sums those that wait for marks.
	marks, sums int
	// maxSums is how many sums may wait for marks.
	maxSums int
	// falls counts how often the node went back.
	falls int

	// received is the payload in bytes that was accepted, including what was dropped later.
	received int64
	// zeros is how many of these came as runs of zeros.
	zeros int64
	// marked is how many bytes are below good marks. durable is how many of these survive a crash.
	marked, durable int64
	// told is what marked was when the node last said how far it is. Once goodEvery bytes more are marked, it says so again.
	told, goodEvery int64
	// inPlace says that Publish has nothing to switch.
	inPlace bool
	// target is what the ANSWER says about what will be overwritten. START has to repeat it.
	target []byte
	// failed says why the phase is Failed.
	failed *wire.Error
	// comparison is how far comparing before START is.
	comparison comparison
	// keep says that good parts are worth keeping for another transfer.
	keep bool

	out []Action
}

// maxProbed is how many probes a node has under way at most. No server has reason to ask for more than a fraction of
// that at once.
const maxProbed = 64

// These bound what a server can make a node keep (PROTOCOL.md section 3). A transfer needs less.
const (
	// maxAddrs is how many addresses of one node FEED, DIAL and PROBE may name, and usedAddrs how many of them are used.
	maxAddrs, usedAddrs = 64, 16
	// maxMarks is how many marks may wait for bytes, which are the marks of 1 TiB, and maxSums how many sums of a node that was not
	// told otherwise
	// may wait for marks.
	maxMarks, maxSums = 1 << 18, 1 << 16
)

// New makes the machine of a node that was offered blobs. markEvery is the distance of marks in bytes.
func New(blobs []v1.Descriptor, markEvery int64) *Machine {
	m := &Machine{blobs: make([]blob, len(blobs)), markEvery: markEvery, goodEvery: math.MaxInt64, maxSums: maxSums}
	for i, d := range blobs {
		m.blobs[i] = blob{called: wire.Called(blobs, i), size: d.Size, want: d.Digest, leaves: leaf.In(d)}
	}
	return m
}

// Ahead tells how many marks the server sends ahead of what is good. The node then says GOOD when a quarter of them more is good
// than it has said, and keeps eight times as many sums.
func (m *Machine) Ahead(marks int64) { m.goodEvery, m.maxSums = marks/4*m.markEvery, int(8*marks) }

func (m *Machine) do(a Action)          { m.out = append(m.out, a) }
func (m *Machine) say(msg wire.Message) { m.do(ActSay{msg}) }

// Step takes an event and returns what to do, in order.
func (m *Machine) Step(ev Event) []Action {
	m.out = nil
	switch ev := ev.(type) {
	case EvHeld:
		m.target = ev.Target
		m.holds(ev)
	case EvMsg:
		m.message(ev.Msg)
	case EvOpen:
		switch {
		case m.phase != Started || ev.Link != m.feedLink:
			m.do(ActRefuse{wire.LinkHelloRefused})
		case ev.Generation != m.feedGen || m.feedOpen:
			m.do(ActRefuse{wire.LinkHelloStale})
		default:
			m.feedOpen = true
			m.do(ActAccept{})
		}
	case EvFrame:
		m.frame(ev)
	case EvFeedEnd:
		m.feedEnd(ev)
	case EvLink:
		m.say(&wire.Link{Link: ev.Link, Generation: ev.Generation, State: ev.State, Code: ev.Code, Reason: wire.Cut(ev.Reason)})
	case EvSum:
		m.sum(ev)
	case EvOwn:
		m.own(ev)
	case EvHashed:
		m.comparison.hashed = true
		m.maybeCompared()
	case EvReset:
		m.resetting = false
		if m.phase == Started {
			m.sayNeed() // FEED may have come meanwhile
		}
	case EvDurable:
		b := &m.blobs[ev.Blob]
		b.stable = true
		m.durable += b.size
		m.maybeComplete()
	case EvPrepared:
		if m.phase == Complete {
			m.phase, m.inPlace = Verified, ev.InPlace
			m.sayVerified()
		}
	case EvPublished:
		if m.phase == Publishing {
			m.phase = Committed
			m.sayCommitted()
		}
	case EvReached:
		m.probes--
		m.say(&wire.Probed{Probe: ev.Probe, Code: ev.Code, Reason: wire.Cut(ev.Reason)})
	case EvResume:
		m.resume()
	case EvFailure:
		m.fail(ev.Err)
	default:
		panic(fmt.Sprintf("member: unknown event %T", ev))
	}
	return m.out
}

func (m *Machine) message(msg wire.Message) {
	switch msg := msg.(type) {
	case *wire.Start:
		m.start(msg)
	case *wire.Feed:
		if m.tooMany(msg.Addrs) {
			return
		}
		if m.phase < Started || m.phase >= Failed || msg.Generation <= m.feedGen {
			return
		}
		if m.feedOpen {
			m.do(ActCloseFeed{})
		}
		m.feedLink, m.feedGen, m.feedOpen, m.feedFin = msg.Link, msg.Generation, false, false
		m.asked = true
		if !m.resetting {
			m.sayNeed()
		}
	case *wire.Dial:
		if !m.tooMany(msg.Addrs) && m.phase >= Started && m.phase < Failed {
			m.do(ActLink{msg})
		}
	case *wire.Undial:
		m.do(ActUnlink{msg.Link})
	case *wire.Marks:
		for _, k := range msg.Marks {
			m.mark(k)
		}
		for i := range m.blobs {
			m.judgeOwn(i)
		}
		m.maybeCompared()
	case *wire.Compare:
		m.startComparing()
	case *wire.Commit:
		switch m.phase {
		case Verified:
			m.phase = Publishing
			m.do(ActPublish{})
		case Committed:
			m.sayCommitted()
		case Publishing, Failed:
		default:
			m.fail(wire.Errorf(wire.CodeProtocol, "told to commit before everything was verified"))
		}
	case *wire.Bye, *wire.Abort:
		m.ended(msg)
	case *wire.Probe:
		if !m.tooMany(msg.Addrs) && m.probes < maxProbed { // a probe takes a socket, and the server draws no conclusion from a missing answer
			m.probes++
			m.do(ActReach{msg})
		}
	case *wire.Ping:
		m.say(&wire.Pong{})
	default:
		m.fail(wire.Errorf(wire.CodeProtocol, "unexpected message %T", msg))
	}
}

// start takes START. The server says it again after a resume.
func (m *Machine) start(msg *wire.Start) {
	if m.phase != Offered {
		return
	}
	if !bytes.Equal(msg.Target, m.target) {
		m.fail(wire.Errorf(wire.CodePolicy, "what the server confirmed is not what this node would overwrite"))
		return
	}
	if m.Comparing() {
		m.sayCompared()
	}
	m.phase = Started
	m.do(ActReceive{})
	m.maybeComplete()
}

// Used returns those of a node's addresses that are used.
func Used(addrs []string) []string { return addrs[:min(len(addrs), usedAddrs)] }

// tooMany fails the node if a message names more addresses than any node has.
func (m *Machine) tooMany(addrs []string) bool {
	if len(addrs) > maxAddrs {
		m.fail(wire.Errorf(wire.CodeProtocol, "a node with %d addresses", len(addrs)))
		return true
	}
	return false
}

func (m *Machine) sayNeed() {
	if m.asked {
		m.asked = false
		m.say(&wire.Need{Link: m.feedLink, Generation: m.feedGen, Needs: m.needs(), Leaves: m.leaves()})
	}
}

// needs returns each blob that lacks bytes, with the first byte that it lacks. It is exact to the frame.
func (m *Machine) needs() [][2]int64 {
	needs := [][2]int64{}
	for i := range m.blobs {
		if b := &m.blobs[i]; b.lacks() {
			needs = append(needs, [2]int64{int64(i), b.accepted})
		}
	}
	return needs
}

func (m *Machine) frame(ev EvFrame) {
	if m.phase != Started || ev.Generation != m.feedGen || !m.feedOpen {
		m.do(ActRefuse{wire.LinkHelloStale})
		return
	}
	if int(ev.Blob) >= len(m.blobs) {
		m.do(ActRefuse{wire.LinkHelloRefused})
		return
	}
	for m.next < len(m.blobs) && !m.blobs[m.next].lacks() {
		m.next++
	}
	b := &m.blobs[ev.Blob]
	if int(ev.Blob) != m.next || ev.Offset != b.accepted || b.size >= 0 && ev.Offset+int64(ev.Length) > b.size {
		m.do(ActRefuse{wire.LinkHelloRefused})
		return
	}
	b.walk(b.accepted + int64(ev.Length))
	m.received += int64(ev.Length)
	if ev.Zero {
		m.zeros += int64(ev.Length)
	}
	m.do(ActAccept{})
}

const earlyFin = "final record before everything was sent"

func (m *Machine) feedEnd(ev EvFeedEnd) {
	if ev.Generation != m.feedGen || !m.feedOpen {
		return
	}
	m.feedOpen, m.feedFin = false, ev.Fin
	state := wire.LinkDown
	for i := range m.blobs {
		if b := &m.blobs[i]; ev.Fin && !b.held && b.accepted < b.size {
			ev.Fin, ev.Code, ev.Reason = false, wire.CodeProtocol, earlyFin
		}
	}
	if ev.Fin {
		state = wire.LinkDone
	}
	m.say(&wire.Link{Link: ev.Link, Generation: ev.Generation, State: state, Code: ev.Code, Reason: wire.Cut(ev.Reason)})
}

func (m *Machine) maybeComplete() {
	if m.phase != Started {
		return
	}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && !b.stable {
			return
		}
	}
	m.phase = Complete
	m.do(ActPrepare{})
}

// Digest returns the digest that this node computed of blob i, or vouched for.
func (m *Machine) Digest(i int) digest.Digest {
	if m.blobs[i].held {
		return m.blobs[i].want
	}
	return m.blobs[i].sum
}

// Report says how far the node is, as far as its machine knows. It has no rates and no links. It is sent to the server.
func (m *Machine) Report() *wire.Report {
	m.told = m.marked
	r := &wire.Report{Received: m.received, Marked: m.marked, Durable: m.durable, Zeros: m.zeros, Blob: len(m.blobs)}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && !b.judged {
			r.Blob, r.Good = i, b.good
			if m.phase == Offered {
				r.Good = m.comparedTo(b)
				m.comparison.told = r.Good
			}
			break
		}
	}
	return r
}

func (m *Machine) sayVerified() {
	m.say(m.Report())
	v := &wire.Verified{Digests: make([]string, len(m.blobs)), InPlace: m.inPlace}
	for i := range m.blobs {
		v.Digests[i] = m.Digest(i).String()
	}
	m.say(v)
}

func (m *Machine) sayCommitted() {
	m.say(&wire.Committed{Digest: m.Digest(len(m.blobs) - 1).String()})
}

// resume repeats what the server may have missed on its broken connection.
func (m *Machine) resume() {
	if m.comparison.said {
		m.sayRight() // START may have been sent meanwhile, and what follows it is of the transfer
	}
	switch m.phase {
	case Verified:
		m.sayVerified()
	case Committed:
		m.sayCommitted()
	case Failed:
		m.sayFailed()
	}
}
