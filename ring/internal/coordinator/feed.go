package coordinator

import (
	"slices"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// feed is the link into a node: who feeds it, and in which generation.
type feed struct {
	state    feedState
	link     uint32
	gen      uint32 // only grows
	feeder   int
	asked    time.Duration // when FEED, or DIAL to its feeder, was sent
	tried    time.Duration // when a link was last given up because nothing happens
	early    bool          // it said done, and waits all the same
	up       time.Duration // since when the link is up
	needs    [][2]int64    // of the last NEED: what the link carries
	sum      int64         // of it, to see progress
	replaces []ownedLink
	ordered  []uint32 // all links it was told to feed
}

// tries is what went wrong with the links into a node.
type tries struct {
	lost    int // links into it, in all
	excused int // of them because the feeder fell back
	fails   int // links from one feeder, the culprit, lost in a row
	culprit int
	why     string // the last of them was
	broke   uint32 // the link its feeder said had broken
	avoid   []int  // may not feed it: their links were lost twice
	direct  bool   // only the server may feed it
}

type feedState int

const (
	feedNone    feedState = iota // also: fell back, and the link to blame is not yet known
	feedAsked                    // FEED sent, NEED awaited
	feedDialled                  // DIAL sent
	feedUp
	feedDone // FIN came, or nothing is needed any more
)

// ownedLink is a dead link whose feeder still holds its window for it: UNDIAL is
// due once the link that stands in for it was ordered.
type ownedLink struct {
	feeder int
	link   uint32
}

// linked says whether a link was ordered, and has not ended.
func (f *feed) linked() bool { return f.state == feedDialled || f.state == feedUp }

// ask begins a new generation, with a link that is ordered once the node has said what it needs.
func (f *feed) ask(link uint32, now time.Duration) {
	f.retire()
	f.state, f.link, f.asked = feedAsked, link, now
	f.gen++
}

// retire keeps the link that there is for release.
func (f *feed) retire() {
	if f.linked() {
		f.replaces = append(f.replaces, ownedLink{f.feeder, f.link})
	}
}

// halt is for a node that fell back: it is asked anew when it is known why.
func (f *feed) halt() {
	f.retire()
	f.state = feedNone
}

// rest is for a node that was not fed yet.
func (f *feed) rest() { f.state = feedNone }

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

// dial is for a link that feeder was told to open.
func (f *feed) dial(feeder int, now time.Duration) {
	f.feeder, f.state, f.asked = feeder, feedDialled, now
}

func (f *feed) raise(now time.Duration) { f.state, f.up = feedUp, now }

// finish is for a node that needs no link any more.
func (f *feed) finish() { f.state = feedDone }

// tryAt notes that a link was given up.
func (f *feed) tryAt(now time.Duration) { f.tried = now }

// earlyAt is for a node that said done, and waits all the same.
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
func (f *feed) feeds(link uint32) { f.ordered = append(f.ordered, link) }

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

// excuse counts a link that was lost because its feeder fell back, of most.
func (t *tries) excuse(most int) bool {
	if t.excused >= most {
		return false
	}
	t.excused++
	return true
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

// takeBack is for a failure that was not the feeder's.
func (t *tries) takeBack() { t.fails = max(0, t.fails-1) }

// further is for a node that has received something since the last failure.
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

// forget is for a feeder that is gone: it was not the link. It says whether failures were held against it.
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
