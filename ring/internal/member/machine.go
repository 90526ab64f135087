package member

import (
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Machine decides for one node in one transfer: which link may feed, which frame
// is accepted, when a blob is good, when to verify and when to publish. It does
// no I/O and knows no time; its driver serialises calls of Step and does what they
// return. The phases are those of PROTOCOL.md section 8, "The node".
type Machine struct {
	phase Phase
	blobs []blob

	feedLink, feedGen uint32 // what may feed; older generations are refused
	feedOpen          bool
	feedFin           bool // it ended with the final record
	asked             bool // FEED came, NEED was not said yet
	next              int  // blobs before it are complete: frames come in travelling order
	resetting         bool // falling back: what was asked of the driver is not done yet
	probes            int  // under way

	received int64 // payload accepted
	marked   int64 // below a good mark
	durable  int64
	inPlace  bool
	failed   *wire.Error
	keep     bool // good parts are worth keeping for another transfer

	out []Action
}

// maxProbed is how many probes a node has under way, a multiple of what a server may have reason to ask for at once.
const maxProbed = 64

// Phase is how far a node is in a transfer.
type Phase int

// The phases, in their order.
const (
	Offered    Phase = iota
	Started          // receiving
	Complete         // every blob held or durable; preparing
	Verified         // VERIFIED sent
	Publishing       // COMMIT came
	Committed
	Failed
)

type blob struct {
	size   int64         // -1: not known yet
	want   digest.Digest // of the offer; "": only the final mark tells
	held   bool          // vouched for in the ANSWER
	claim  int64         // leading bytes there before, which marks have not judged yet
	recv   int64         // claimed, and accepted frame by frame
	good   int64         // below a mark whose sum was equal
	final  digest.Digest // of the final mark; "": not come yet
	sum    digest.Digest // computed over the whole blob; "": not there yet
	judged bool          // sum and final were compared
	stable bool          // durable

	marks []wire.Mark // come, by offset, those above good
	sums  []blobSum   // hashed, by offset, those above good
}

type blobSum struct {
	off int64
	sum []byte
}

// New makes the machine of a node that was offered blobs.
func New(blobs []v1.Descriptor) *Machine {
	m := &Machine{blobs: make([]blob, len(blobs))}
	for i, d := range blobs {
		m.blobs[i] = blob{size: d.Size, want: d.Digest}
	}
	return m
}

func (m *Machine) do(a Action)          { m.out = append(m.out, a) }
func (m *Machine) say(msg wire.Message) { m.do(ActSay{msg}) }

// Position is where a node stands in one blob.
type Position struct {
	Size     int64 // -1: not known yet
	Held     bool  // vouched for in the ANSWER
	Judged   bool  // its digest is right
	Received int64 // claimed, and accepted frame by frame
	Good     int64 // below a mark whose sum was equal
}

// Position says where the node stands in blob i.
func (m *Machine) Position(i int) Position {
	b := &m.blobs[i]
	return Position{Size: b.size, Held: b.held, Judged: b.judged, Received: b.recv, Good: b.good}
}

// Phase says how far the node is.
func (m *Machine) Phase() Phase { return m.phase }

// Failure says why the node failed; nil: it did not.
func (m *Machine) Failure() *wire.Error { return m.failed }

// Generation is the newest generation that FEED named.
func (m *Machine) Generation() uint32 { return m.feedGen }

// Received is the payload accepted, in bytes.
func (m *Machine) Received() int64 { return m.received }

// InPlace says that there was nothing to switch.
func (m *Machine) InPlace() bool { return m.inPlace }

// Keeps says whether good parts of what was not published are worth keeping for another transfer.
func (m *Machine) Keeps() bool { return m.keep }

// Resetting says whether the node falls back: EvReset, which answers ActReset, has not come.
func (m *Machine) Resetting() bool { return m.resetting }

// Step takes an event and returns what is to be done, in this order.
func (m *Machine) Step(ev Event) []Action {
	m.out = nil
	switch ev := ev.(type) {
	case EvHeld:
		for i := range m.blobs {
			b := &m.blobs[i]
			d := v1.Descriptor{Digest: b.want, Size: b.size}
			if b.held = wire.Vouched(d, ev.Held[i]); !b.held {
				b.claim = wire.Claimed(d, ev.Held[i])
				b.recv = b.claim
			}
		}
	case EvMsg:
		m.message(ev.Msg)
	case EvOpen:
		switch {
		case m.phase != Started || ev.Link != m.feedLink:
			m.do(ActRefuse{wire.HelloRefused})
		case ev.Generation != m.feedGen || m.feedOpen:
			m.do(ActRefuse{wire.HelloStale})
		default:
			m.feedOpen = true
			m.do(ActAccept{})
		}
	case EvFrame:
		m.frame(ev)
	case EvFeedEnd:
		m.feedEnd(ev)
	case EvLink:
		m.say(&wire.Link{Link: ev.Link, Generation: ev.Generation, State: ev.State, Code: ev.Code, Reason: ev.Reason})
	case EvSum:
		m.sum(ev)
	case EvReset:
		m.resetting = false
		if m.phase == Started {
			m.sayNeed() // of the feed that was ordered meanwhile, if any
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
		m.say(&wire.Probed{Probe: ev.Probe, Code: ev.Code, Reason: ev.Reason})
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
		if m.phase != Offered {
			return // said again after a resume
		}
		m.phase = Started
		m.do(ActReceive{})
		m.maybeComplete()
	case *wire.Feed:
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
		if m.phase >= Started && m.phase < Failed {
			m.do(ActLink{msg})
		}
	case *wire.Undial:
		m.do(ActUnlink{msg.Link})
	case *wire.Marks:
		for _, k := range msg.Marks {
			m.mark(k)
		}
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
		why, keep := error(errEnded), m.keep
		if a, ok := msg.(*wire.Abort); ok {
			why, keep = &AbortError{a.Code, a.Reason}, a.Keep
		}
		if m.phase < Publishing { // else our own failure has decided what is kept
			m.keep = keep
			m.phase, m.failed = Failed, &wire.Error{Code: wire.CodeAbandoned, Err: why}
		}
		m.do(ActRelease{})
	case *wire.Probe:
		if m.probes < maxProbed { // each takes a socket; who does not answer is not held to be unable
			m.probes++
			m.do(ActReach{msg})
		}
	case *wire.Ping:
		m.say(&wire.Pong{})
	default:
		m.fail(wire.Errorf(wire.CodeProtocol, "unexpected message %T", msg))
	}
}

func (m *Machine) sayNeed() {
	if m.asked {
		m.asked = false
		m.say(&wire.Need{Link: m.feedLink, Generation: m.feedGen, Needs: m.needs()})
	}
}

// needs is exact: what was accepted, frame by frame.
func (m *Machine) needs() [][2]int64 {
	needs := [][2]int64{}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && b.recv != b.size {
			needs = append(needs, [2]int64{int64(i), b.recv})
		}
	}
	return needs
}

// ReceivedAll says whether no feed has anything more to bring.
func (m *Machine) ReceivedAll() bool {
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && b.recv != b.size {
			return false
		}
	}
	return true
}

func (m *Machine) frame(ev EvFrame) {
	if m.phase != Started || ev.Generation != m.feedGen || !m.feedOpen {
		m.do(ActRefuse{wire.HelloStale})
		return
	}
	if int(ev.Blob) >= len(m.blobs) {
		m.do(ActRefuse{wire.HelloRefused})
		return
	}
	for m.next < len(m.blobs) && (m.blobs[m.next].held || m.blobs[m.next].recv == m.blobs[m.next].size) {
		m.next++
	}
	b := &m.blobs[ev.Blob]
	if int(ev.Blob) != m.next || ev.Offset != b.recv || b.size >= 0 && ev.Offset+int64(ev.Length) > b.size {
		m.do(ActRefuse{wire.HelloRefused})
		return
	}
	b.recv += int64(ev.Length)
	m.received += int64(ev.Length)
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
		if b := &m.blobs[i]; ev.Fin && !b.held && b.recv < b.size {
			ev.Fin, ev.Code, ev.Reason = false, wire.CodeProtocol, earlyFin
		}
	}
	if ev.Fin {
		state = wire.LinkDone
	}
	m.say(&wire.Link{Link: ev.Link, Generation: ev.Generation, State: state, Code: ev.Code, Reason: ev.Reason})
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

// Digest is what this node computed of blob i, or vouched for.
func (m *Machine) Digest(i int) digest.Digest {
	if m.blobs[i].held {
		return m.blobs[i].want
	}
	return m.blobs[i].sum
}

// Report says how far the node is, as far as its machine knows: no rates, no links.
func (m *Machine) Report() *wire.Report {
	r := &wire.Report{Received: m.received, Marked: m.marked, Durable: m.durable, Blob: len(m.blobs)}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && !b.judged {
			r.Blob, r.Good = i, b.good
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
	switch m.phase {
	case Verified:
		m.sayVerified()
	case Committed:
		m.sayCommitted()
	case Failed:
		m.sayFailed()
	}
}

func (m *Machine) fail(err *wire.Error) {
	if m.phase >= Committed {
		return
	}
	m.phase, m.failed = Failed, err
	m.keep = err.Code == wire.CodeAbandoned || err.Code == wire.CodeShutdown // not our fault
	m.sayFailed()
	m.do(ActRelease{})
}

func (m *Machine) sayFailed() {
	m.say(m.Report())
	m.say(&wire.Fail{Code: m.failed.Code, Reason: m.failed.Error()})
}
