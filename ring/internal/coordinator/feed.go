package coordinator

import "time"

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
