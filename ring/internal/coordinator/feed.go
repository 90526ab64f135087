package coordinator

import (
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// feed is the link into a node: who feeds the node, and in which generation.
//
// The generation gen grows by one with each link. The feeder is set from feedDialled on. No link in replaces is
// in use any more.
type feed struct {
	state  feedState
	link   uint32
	gen    uint32
	feeder int
	// asked is when FEED was sent to the node, or DIAL to its feeder. up is when the link came up.
	asked, up time.Duration
	// tried is when a link was last given up because nothing happened on it.
	tried time.Duration
	// early is set if the node said done and waits all the same. passed is set if the node was moved to the end of the
	// order because it does not say what it needs.
	early, passed bool
	// sated is set if the node said that it was sent everything, and has not got on since. It may say otherwise in
	// between, and be fed anew.
	sated bool
	// needs is what the node's last NEED asks for, without leaves. sum is needs as one number (needSum).
	needs  [][2]int64
	leaves []wire.Leaves
	sum    int64
	// replaces has the dead links into the node for which UNDIAL has to be sent.
	replaces []ownedLink
	// ordered has the links that this node was told to feed and may still have.
	ordered []uint32
}

// tries is what went wrong with the links into a node.
//
// Fails counts only links from culprit. Direct is true while avoid has maxAvoid nodes or more.
type tries struct {
	// lost counts all links into the node that were lost. excused counts those that were lost because their feeder fell
	// back, in a row and from one feeder, which is excusedOf.
	lost, excused, excusedOf int
	// vain counts the links, from whatever feeders, that were lost in a row and over which nothing came.
	vain int
	// fails counts the links from one feeder, the culprit, that were lost in a row. why is the reason that was
	// given for the last of them.
	fails   int
	culprit int
	why     string
	// broke is the link that broke by the word of its feeder. 0 is none.
	broke uint32
	// avoid has the nodes that may not feed this one, because links from them were lost twice.
	avoid []int
	// direct is set if only the server may feed the node.
	direct bool
}

type feedState int

const (
	feedNone    feedState = iota // the node has no link, or fell back and the link to blame is not known yet
	feedAsked                    // FEED was sent, and NEED is awaited
	feedDialled                  // DIAL was sent to the feeder
	feedUp
	feedDone // FIN came, or the node needs nothing any more
)

// ownedLink is a dead link for which its feeder still holds the window. UNDIAL is sent once another link was ordered in
// its place.
type ownedLink struct {
	feeder int
	link   uint32
}

// linked reports whether a link was ordered and has not ended.
func (f *feed) linked() bool { return f.state == feedDialled || f.state == feedUp }

// ask begins a new generation. Its link is ordered once the node has said what it needs.
func (f *feed) ask(link uint32, now time.Duration) {
	f.retire()
	f.state, f.link, f.asked, f.passed = feedAsked, link, now, false
	f.gen++
}

// passOver notes that the node was moved to the end of the order because it does not say what it needs.
func (f *feed) passOver() { f.passed = true }

// ownedBy reports whether feeder feeds this node, or holds its window for a dead link until another one was ordered in
// its place.
func (f *feed) ownedBy(feeder int) bool {
	return f.feeder == feeder && f.linked() ||
		slices.ContainsFunc(f.replaces, func(l ownedLink) bool { return l.feeder == feeder })
}

// retire keeps the present link, if there is one, for release.
func (f *feed) retire() {
	if f.linked() {
		f.replaces = append(f.replaces, ownedLink{f.feeder, f.link})
	}
}

// halt ends the link of a node that fell back. The node is asked anew once the server knows why it did.
func (f *feed) halt() {
	f.retire()
	f.state = feedNone
}

// rest notes that the node is not fed yet and feeds nobody, because it has just answered an offer.
func (f *feed) rest() { f.state, f.ordered = feedNone, nil }

// answers reports whether a NEED is the answer to the last FEED.
func (f *feed) answers(ev EvNeed) bool {
	return f.state == feedAsked && ev.Generation == f.gen && ev.Link == f.link
}

// take keeps what the node needs. It reports whether that differs from what the node needed before.
func (f *feed) take(blobs []v1.Descriptor, needs [][2]int64, leaves []wire.Leaves) (other bool) {
	f.needs, f.leaves = needs, leaves
	if len(needs) == 0 {
		return false
	}
	sum := needSum(blobs, needs)
	other = sum != f.sum
	f.sum = sum
	return other
}

// dial notes that feeder was told to open the link.
func (f *feed) dial(feeder int, now time.Duration) {
	f.feeder, f.state, f.asked = feeder, feedDialled, now
}

func (f *feed) raise(now time.Duration) { f.state, f.up = feedUp, now }

// finish notes that the node needs no link any more.
func (f *feed) finish() { f.state, f.sated = feedDone, true }

// gotOn notes that the node has got on.
func (f *feed) gotOn() { f.sated = false }

// tryAt notes that a link was given up.
func (f *feed) tryAt(now time.Duration) { f.tried = now }

// earlyAt notes that the node said done, and waits all the same.
func (f *feed) earlyAt(now time.Duration) { f.tried, f.early = now, true }

// wasEarly reports whether earlyAt was called since the last wasEarly.
func (f *feed) wasEarly() bool {
	early := f.early
	f.early = false
	return early
}

// release returns the links for which UNDIAL has to be sent, and forgets them.
func (f *feed) release() []ownedLink {
	links := f.replaces
	f.replaces = nil
	return links
}

// inherit takes over dead links from another node. Their UNDIAL is sent with the next link into this node.
func (f *feed) inherit(links []ownedLink) { f.replaces = append(f.replaces, links...) }

// feeds notes a link that this node was told to feed.
func (f *feed) feeds(link uint32) { f.ordered = append(f.ordered, link) }

// undialled forgets a link that this node has ended, because it has read UNDIAL. Until then it gets UNDIAL again when it
// resumes.
func (f *feed) undialled(link uint32) {
	f.ordered = slices.DeleteFunc(f.ordered, func(o uint32) bool { return o == link })
}

// needSum folds a NEED into one number that changes when anything was received.
func needSum(blobs []v1.Descriptor, needs [][2]int64) (s int64) {
	for _, nd := range needs {
		s += nd[1] + 1 // this counts up because a stream has no size from which to subtract
		if b := nd[0]; b >= 0 && b < int64(len(blobs)) {
			s -= max(blobs[b].Size, 0) + 1
		}
	}
	return s
}

// maxVain is how many links in a row may be lost, over which nothing came, before each further one is held against its feeder.
const maxVain = 4

// maxAvoid is how many feeders a node has in vain before the server feeds it. After so many the fault is most likely
// its own.
const maxAvoid = 2

// excuse counts a lost link whose feeder says that it fell back. So far the feeder has fallen back falls times. It may
// give this reason for a link before its FALLBACK arrives, so once more is plausible. excuse reports whether the reason is.
func (t *tries) excuse(feeder, falls int) bool {
	if feeder != t.excusedOf {
		t.excusedOf, t.excused = feeder, 0
	}
	t.excused++
	return t.excused <= falls+1
}

// lose counts a lost link, and returns how many were lost.
func (t *tries) lose() (all int) {
	t.lost++
	return t.lost
}

// fail counts a lost link from feeder. It reports whether the last lost links before were from another feeder.
func (t *tries) fail(feeder int, why string) (other bool) {
	t.vain++
	if other = feeder != t.culprit; other {
		t.culprit, t.fails = feeder, 0
	}
	t.fails++
	t.why = why
	return other
}

// takeBack takes back one failure that was not the feeder's.
func (t *tries) takeBack() { t.fails, t.vain = max(0, t.fails-1), max(0, t.vain-1) }

// further notes that the node has received something since the last failure, so that only that one still counts.
func (t *tries) further() { t.fails, t.vain = min(t.fails, 1), min(t.vain, 1) }

// breaks notes which link broke by the word of its feeder. 0 is none.
func (t *tries) breaks(link uint32) { t.broke = link }

// shun keeps feeder from feeding the node.
func (t *tries) shun(feeder int) {
	if !slices.Contains(t.avoid, feeder) {
		t.avoid = append(t.avoid, feeder)
	}
	t.direct = len(t.avoid) >= maxAvoid
}

// serverOnly lets only the server feed the node.
func (t *tries) serverOnly() { t.direct = true }

// forget drops what is held against a feeder that is gone, because its links were not at fault. It reports whether
// failures were held against it.
func (t *tries) forget(feeder int) (failed bool) {
	if failed = t.culprit == feeder && t.fails > 0; failed {
		t.fails, t.vain = 0, max(0, t.vain-t.fails)
	}
	if k := slices.Index(t.avoid, feeder); k >= 0 {
		t.avoid = slices.Delete(t.avoid, k, k+1)
		t.direct = len(t.avoid) >= maxAvoid
	}
	return failed
}
