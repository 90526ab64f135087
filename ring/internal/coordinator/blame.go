package coordinator

import (
	"slices"
	"time"
)

// maxFalls is how often a node may fall back, maxBlames of how many others links to it may be blamed before it fails.
// Each link from the server counts as another one.
const (
	maxFalls  = 5
	maxBlames = 2
	// maxUnclear is how often it falls back before only the server may feed it, when
	// nobody can be blamed: a link that breaks after each lie must not go on for ever.
	maxUnclear = 3
)

// blame is what is held against a node because bytes were not as the source has them.
//
// suspect is set from a FALLBACK until its link is judged. ends and falls only grow.
type blame struct {
	// banned says that a link that it fed changed bytes: it feeds nobody any more.
	banned bool
	// ends are the nodes at the other ends of links that changed bytes and that it was an end of: each node once, and
	// the server, which is 0, as often as it was.
	ends []int
	// falls counts how often it fell back.
	falls int
	// damage is what it said of the last damaged frame. Its feeder sees only that the link broke.
	damage  string
	suspect *suspicion
	fell    lastFall
}

// lastFall says that a node that fell back had good bytes of blob below good, and that what it has sent on links
// up to link is in doubt above that.
type lastFall struct {
	link uint32
	blob int
	good int64
}

// suspicion is a FALLBACK whose link is not yet judged.
type suspicion struct {
	feeder int
	link   string
	id     uint32 // of the link
	blob   int
	off    int64 // of the mark that differs
	since  time.Duration
}

// fall notes that the node fell back to good bytes of a blob, when links up to link were ordered. It says
// whether that was once too often.
func (b *blame) fall(link uint32, blob int, good int64) (tooOften bool) {
	b.fell.link, b.fell.blob, b.fell.good = link, blob, good
	b.falls++
	return b.falls > maxFalls
}

// unclear says whether the node fell back so often that only the server may feed it, where nobody can
// be blamed.
func (b *blame) unclear() bool { return b.falls >= maxUnclear }

// saw keeps what the node says of a damaged frame; "": it got further since.
func (b *blame) saw(damage string) { b.damage = damage }

func (b *blame) suspects(s *suspicion) { b.suspect = s }

func (b *blame) unsuspect() { b.suspect = nil }

// hold holds a link against the node, which was an end of it; other was the other one.
func (b *blame) hold(other int) {
	if other == 0 || !slices.Contains(b.ends, other) {
		b.ends = append(slices.Clone(b.ends), other)
	}
}

// with says whether a link between the node and other changed bytes.
func (b *blame) with(other int) bool { return slices.Contains(b.ends, other) }

// often says whether links to too many others are held against the node. One alone may be to blame for all of its own.
func (b *blame) often() bool { return len(b.ends) >= maxBlames }

func (b *blame) ban() { b.banned = true }
