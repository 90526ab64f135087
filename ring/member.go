package ring

import (
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// member decides for one node in one transfer: which link may feed, which frame
// is accepted, when a blob is good, when to verify and when to publish. It does
// no I/O and knows no time; transfer.go serialises calls of step and does what it
// returns. The phases are those of PROTOCOL.md section 8, "The node".
type member struct {
	phase memberPhase
	blobs []memberBlob

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
	failed   *nodeError
	keep     bool // good parts are worth keeping for another transfer

	out []action
}

// maxProbed is how many probes a node has under way, a multiple of what a server may have reason to ask for at once.
const maxProbed = 64

type memberPhase int

const (
	mOffered    memberPhase = iota
	mStarted                // receiving
	mComplete               // every blob held or durable; preparing
	mVerified               // VERIFIED sent
	mPublishing             // COMMIT came
	mCommitted
	mFailed
)

type memberBlob struct {
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

func newMember(blobs []v1.Descriptor) *member {
	m := &member{blobs: make([]memberBlob, len(blobs))}
	for i, d := range blobs {
		m.blobs[i] = memberBlob{size: d.Size, want: d.Digest}
	}
	return m
}

func (m *member) do(a action)          { m.out = append(m.out, a) }
func (m *member) say(msg wire.Message) { m.do(actSay{msg}) }

func (m *member) step(ev any) []action {
	m.out = nil
	switch ev := ev.(type) {
	case meHeld:
		for i := range m.blobs {
			b := &m.blobs[i]
			d := v1.Descriptor{Digest: b.want, Size: b.size}
			if b.held = vouched(d, ev.held[i]); !b.held {
				b.claim = claimed(d, ev.held[i])
				b.recv = b.claim
			}
		}
	case meMsg:
		m.message(ev.msg)
	case meOpen:
		switch {
		case m.phase != mStarted || ev.link != m.feedLink:
			m.do(actRefuse{wire.HelloRefused})
		case ev.gen != m.feedGen || m.feedOpen:
			m.do(actRefuse{wire.HelloStale})
		default:
			m.feedOpen = true
			m.do(actAccept{})
		}
	case meFrame:
		m.frame(ev)
	case meFeedEnd:
		m.feedEnd(ev)
	case meLink:
		m.say(&wire.Link{Link: ev.link, Generation: ev.gen, State: ev.state, Code: string(ev.code), Reason: ev.reason})
	case meSum:
		m.sum(ev)
	case meReset:
		m.resetting = false
		if m.phase == mStarted {
			m.sayNeed() // of the feed that was ordered meanwhile, if any
		}
	case meDurable:
		b := &m.blobs[ev.blob]
		b.stable = true
		m.durable += b.size
		m.maybeComplete()
	case mePrepared:
		if m.phase == mComplete {
			m.phase, m.inPlace = mVerified, ev.inPlace
			m.sayVerified()
		}
	case mePublished:
		if m.phase == mPublishing {
			m.phase = mCommitted
			m.sayCommitted()
		}
	case meReached:
		m.probes--
		m.say(&wire.Probed{Probe: ev.probe, Code: string(ev.code), Reason: ev.reason})
	case meResume:
		m.resume()
	case meFailure:
		m.fail(ev.err)
	default:
		panic(fmt.Sprintf("ring: unknown event %T", ev))
	}
	return m.out
}

func (m *member) message(msg wire.Message) {
	switch msg := msg.(type) {
	case *wire.Start:
		if m.phase != mOffered {
			return // said again after a resume
		}
		m.phase = mStarted
		m.do(actReceive{})
		m.maybeComplete()
	case *wire.Feed:
		if m.phase < mStarted || m.phase >= mFailed || msg.Generation <= m.feedGen {
			return
		}
		if m.feedOpen {
			m.do(actCloseFeed{})
		}
		m.feedLink, m.feedGen, m.feedOpen, m.feedFin = msg.Link, msg.Generation, false, false
		m.asked = true
		if !m.resetting {
			m.sayNeed()
		}
	case *wire.Dial:
		if m.phase >= mStarted && m.phase < mFailed {
			m.do(actLink{msg})
		}
	case *wire.Undial:
		m.do(actUnlink{msg.Link})
	case *wire.Marks:
		for _, k := range msg.Marks {
			m.mark(k)
		}
	case *wire.Commit:
		switch m.phase {
		case mVerified:
			m.phase = mPublishing
			m.do(actPublish{})
		case mCommitted:
			m.sayCommitted()
		case mPublishing, mFailed:
		default:
			m.fail(failf(CodeProtocol, "told to commit before everything was verified"))
		}
	case *wire.Bye, *wire.Abort:
		reason, keep := "the server ended the transfer", m.keep
		if a, ok := msg.(*wire.Abort); ok {
			reason, keep = abortedBy+a.Reason, a.Keep
		}
		if m.phase < mPublishing { // else our own failure has decided what is kept
			m.keep = keep
			m.phase, m.failed = mFailed, failf(CodeAbandoned, "%s", reason)
		}
		m.do(actRelease{})
	case *wire.Probe:
		if m.probes < maxProbed { // each takes a socket; who does not answer is not held to be unable
			m.probes++
			m.do(actReach{msg})
		}
	case *wire.Ping:
		m.say(&wire.Pong{})
	default:
		m.fail(failf(CodeProtocol, "unexpected message %T", msg))
	}
}

func (m *member) sayNeed() {
	if m.asked {
		m.asked = false
		m.say(&wire.Need{Link: m.feedLink, Generation: m.feedGen, Needs: m.needs()})
	}
}

// needs is exact: what was accepted, frame by frame.
func (m *member) needs() [][2]int64 {
	needs := [][2]int64{}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && b.recv != b.size {
			needs = append(needs, [2]int64{int64(i), b.recv})
		}
	}
	return needs
}

// receivedAll says whether no feed has anything more to bring.
func (m *member) receivedAll() bool {
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && b.recv != b.size {
			return false
		}
	}
	return true
}

func (m *member) frame(ev meFrame) {
	if m.phase != mStarted || ev.gen != m.feedGen || !m.feedOpen {
		m.do(actRefuse{wire.HelloStale})
		return
	}
	if int(ev.blob) >= len(m.blobs) {
		m.do(actRefuse{wire.HelloRefused})
		return
	}
	for m.next < len(m.blobs) && (m.blobs[m.next].held || m.blobs[m.next].recv == m.blobs[m.next].size) {
		m.next++
	}
	b := &m.blobs[ev.blob]
	if int(ev.blob) != m.next || ev.off != b.recv || b.size >= 0 && ev.off+int64(ev.n) > b.size {
		m.do(actRefuse{wire.HelloRefused})
		return
	}
	b.recv += int64(ev.n)
	m.received += int64(ev.n)
	m.do(actAccept{})
}

const earlyFin = "final record before everything was sent"

func (m *member) feedEnd(ev meFeedEnd) {
	if ev.gen != m.feedGen || !m.feedOpen {
		return
	}
	m.feedOpen, m.feedFin = false, ev.fin
	state := wire.LinkDown
	for i := range m.blobs {
		if b := &m.blobs[i]; ev.fin && !b.held && b.recv < b.size {
			ev.fin, ev.code, ev.reason = false, CodeProtocol, earlyFin
		}
	}
	if ev.fin {
		state = wire.LinkDone
	}
	m.say(&wire.Link{Link: ev.link, Generation: ev.gen, State: state, Code: string(ev.code), Reason: ev.reason})
}

func (m *member) maybeComplete() {
	if m.phase != mStarted {
		return
	}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && !b.stable {
			return
		}
	}
	m.phase = mComplete
	m.do(actPrepare{})
}

// digest is what this node computed of blob i, or vouched for.
func (m *member) digest(i int) digest.Digest {
	if m.blobs[i].held {
		return m.blobs[i].want
	}
	return m.blobs[i].sum
}

func (m *member) report() *wire.Report {
	r := &wire.Report{Received: m.received, Marked: m.marked, Durable: m.durable, Blob: len(m.blobs)}
	for i := range m.blobs {
		if b := &m.blobs[i]; !b.held && !b.judged {
			r.Blob, r.Good = i, b.good
			break
		}
	}
	return r
}

func (m *member) sayVerified() {
	m.say(m.report())
	v := &wire.Verified{Digests: make([]string, len(m.blobs)), InPlace: m.inPlace}
	for i := range m.blobs {
		v.Digests[i] = m.digest(i).String()
	}
	m.say(v)
}

func (m *member) sayCommitted() {
	m.say(&wire.Committed{Digest: m.digest(len(m.blobs) - 1).String()})
}

// resume repeats what the server may have missed on its broken connection.
func (m *member) resume() {
	switch m.phase {
	case mVerified:
		m.sayVerified()
	case mCommitted:
		m.sayCommitted()
	case mFailed:
		m.sayFailed()
	}
}

func (m *member) fail(err *nodeError) {
	if m.phase >= mCommitted {
		return
	}
	m.phase, m.failed = mFailed, err
	m.keep = err.code == CodeAbandoned || err.code == CodeShutdown // not our fault
	m.sayFailed()
	m.do(actRelease{})
}

func (m *member) sayFailed() {
	m.say(m.report())
	m.say(&wire.Fail{Code: string(m.failed.code), Reason: m.failed.Error()})
}
