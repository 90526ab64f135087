package coordinator

import (
	"slices"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// feed is the link into a node: who feeds it, and in which generation.
//
// gen only grows, by one with each link. feeder means something from feedDialled on. replaces has no link
// that is still in use.
type feed struct {
	state  feedState
	link   uint32
	gen    uint32
	feeder int
	// asked is when FEED was sent, or DIAL to the feeder. up is since when the link is up.
	asked, up time.Duration
	// tried is when a link was last given up because nothing happened on it.
	tried time.Duration
	// early says that the node said done, and waits all the same. passed says that it does not say what it needs, and
	// was moved to the end of the order because of that.
	early, passed bool
	// needs is what its last NEED asks for, sum the same as one number (needSum).
	needs [][2]int64
	sum   int64
	// replaces are the dead links into the node for which UNDIAL is due.
	replaces []ownedLink
	// ordered are the links that this node was told to feed and may have yet.
	ordered []orderedLink
}

// tries is what went wrong with the links into a node.
//
// fails counts links from culprit alone. direct is true while avoid has maxAvoid nodes or more.
type tries struct {
	// lost counts all links into the node that were lost; excused those that were because the feeder fell back, of the
	// feeder excusedOf, to which that happened last, by itself.
	lost, excused, excusedOf int
	// fails counts the links from one feeder, the culprit, that were lost in a row, and why is what was said of
	// the last of them.
	fails   int
	culprit int
	why     string
	// broke is the link that its feeder said had broken; 0 is none.
	broke uint32
	// avoid are the nodes that may not feed it, because links from them were lost twice.
	avoid []int
	// direct says that only the server may feed it.
	direct bool
}

type feedState int

const (
	feedNone    feedState = iota // also: fell back, and the link to blame is not yet known
	feedAsked                    // FEED sent, NEED awaited
	feedDialled                  // DIAL sent
	feedUp
	feedDone // FIN came, or nothing is needed any more
)

// ownedLink is a dead link whose feeder still holds its window for it. UNDIAL is sent once the link that stands
// in for it was ordered.
type ownedLink struct {
	feeder int
	link   uint32
}

// orderedLink is a link that a node was told to feed. undialled says that it was told to end it, reports how often it has
// reported since.
type orderedLink struct {
	link      uint32
	undialled bool
	reports   int
}

// linked says whether a link was ordered, and has not ended.
func (f *feed) linked() bool { return f.state == feedDialled || f.state == feedUp }

// ask begins a new generation, with a link that is ordered once the node has said what it needs.
func (f *feed) ask(link uint32, now time.Duration) {
	f.retire()
	f.state, f.link, f.asked, f.passed = feedAsked, link, now, false
	f.gen++
}

// passOver notes that the node was moved because it does not say what it needs.
func (f *feed) passOver() { f.passed = true }

// ownedBy says whether a node feeds this one, or holds its window until another link was ordered in place of one of its.
func (f *feed) ownedBy(feeder int) bool {
	return f.feeder == feeder && f.linked() ||
		slices.ContainsFunc(f.replaces, func(l ownedLink) bool { return l.feeder == feeder })
}

// retire keeps the link that there is for release.
func (f *feed) retire() {
	if f.linked() {
		f.replaces = append(f.replaces, ownedLink{f.feeder, f.link})
	}
}

// halt ends the link of a node that fell back. The node is asked anew when it is known why it did.
func (f *feed) halt() {
	f.retire()
	f.state = feedNone
}

// rest says that the node, which has just answered an offer, is not fed yet, and feeds nobody.
func (f *feed) rest() { f.state, f.ordered = feedNone, nil }

// answers says whether the node says what it needs of the link that was ordered last.
func (f *feed) answers(ev EvNeed) bool {
	return f.state == feedAsked && ev.Generation == f.gen && ev.Link == f.link
}

// take keeps what the node needs, and says whether that is another thing than before.
func (f *feed) take(blobs []v1.Descriptor, needs [][2]int64) (other bool) {
	f.needs = needs
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
func (f *feed) finish() { f.state = feedDone }

// tryAt notes that a link was given up.
func (f *feed) tryAt(now time.Duration) { f.tried = now }

// earlyAt notes that the node said done, and waits all the same.
func (f *feed) earlyAt(now time.Duration) { f.tried, f.early = now, true }

// wasEarly says whether that was so, once.
func (f *feed) wasEarly() bool {
	early := f.early
	f.early = false
	return early
}

// release hands out the links that UNDIAL is due for.
func (f *feed) release() []ownedLink {
	links := f.replaces
	f.replaces = nil
	return links
}

// inherit has the links of another that UNDIAL is due for wait for the next link into this node.
func (f *feed) inherit(links []ownedLink) { f.replaces = append(f.replaces, links...) }

// feeds notes a link that this node was told to feed.
func (f *feed) feeds(link uint32) { f.ordered = append(f.ordered, orderedLink{link: link}) }

// undials notes that this node was told to end a link.
func (f *feed) undials(link uint32) {
	for k := range f.ordered {
		if o := &f.ordered[k]; o.link == link {
			o.undialled, o.reports = true, 0
		}
	}
}

// surely is how many reports after UNDIAL tell that a node has heard it: the first ones may have been under way.
const surely = 3

// reported forgets the links that this node has surely ended. Until then UNDIAL is said again when it resumes.
func (f *feed) reported() {
	for k := range f.ordered {
		if o := &f.ordered[k]; o.undialled {
			o.reports++
		}
	}
	f.ordered = slices.DeleteFunc(f.ordered, func(o orderedLink) bool { return o.reports >= surely })
}

// needSum folds a NEED into one number that changes when anything was received.
func needSum(blobs []v1.Descriptor, needs [][2]int64) (s int64) {
	for _, nd := range needs {
		s += nd[1] + 1 // a stream has no size to subtract from
		if b := nd[0]; b >= 0 && b < int64(len(blobs)) {
			s -= max(blobs[b].Size, 0) + 1
		}
	}
	return s
}

// maxAvoid is how many feeders a node is offered in vain before the server feeds
// it: the fault is then most likely its own.
const maxAvoid = 2

// excuse counts a link that was lost because its feeder says that it fell back, which it has said falls times so far. It
// may say so of its links before: then this is one time more. It says whether that is true as far as is known.
func (t *tries) excuse(feeder, falls int) bool {
	if feeder != t.excusedOf {
		t.excusedOf, t.excused = feeder, 0
	}
	t.excused++
	return t.excused <= falls+1
}

// lose counts a link that was lost.
func (t *tries) lose() (all int) {
	t.lost++
	return t.lost
}

// fail counts a link from feeder that was lost; other says that the ones before were from another feeder.
func (t *tries) fail(feeder int, why string) (other bool) {
	if other = feeder != t.culprit; other {
		t.culprit, t.fails = feeder, 0
	}
	t.fails++
	t.why = why
	return other
}

// takeBack takes back one failure, which was not the feeder's.
func (t *tries) takeBack() { t.fails = max(0, t.fails-1) }

// further notes that the node has received something since the last failure.
func (t *tries) further() { t.fails = min(t.fails, 1) }

// breaks notes which link its feeder said had broken; 0: none.
func (t *tries) breaks(link uint32) { t.broke = link }

// shun has the node fed by others than feeder.
func (t *tries) shun(feeder int) {
	if !slices.Contains(t.avoid, feeder) {
		t.avoid = append(t.avoid, feeder)
	}
	t.direct = len(t.avoid) >= maxAvoid
}

// serverOnly has the node fed by the server.
func (t *tries) serverOnly() { t.direct = true }

// forget drops what is held against a feeder that is gone, because the fault was not the link. It says whether
// failures were.
func (t *tries) forget(feeder int) (failed bool) {
	if failed = t.culprit == feeder && t.fails > 0; failed {
		t.fails = 0
	}
	if k := slices.Index(t.avoid, feeder); k >= 0 {
		t.avoid = slices.Delete(t.avoid, k, k+1)
		t.direct = len(t.avoid) >= maxAvoid
	}
	return failed
}
